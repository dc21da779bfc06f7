"""The environment in which an unmodified program finds the local cloud instead of Google."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.cloud.state import Running

LOOPBACK = "localhost,127.0.0.1,::1"
PROXY_NAMES = (
    "https_proxy",
    "HTTPS_PROXY",
    "http_proxy",
    "HTTP_PROXY",
    "grpc_proxy",
    "all_proxy",
    "ALL_PROXY",
)
NO_PROXY_NAMES = ("no_proxy", "NO_PROXY", "no_grpc_proxy")
CA_NAMES = (
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HTTPLIB2_CA_CERTS",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
)
# With these a program would bypass the proxy or use a real account.
REMOVED = (
    "STORAGE_EMULATOR_HOST",
    "GOOGLE_API_USE_CLIENT_CERTIFICATE",
    "GOOGLE_API_USE_MTLS_ENDPOINT",
    "GOOGLE_CLOUD_UNIVERSE_DOMAIN",
    "GOOGLE_CLOUD_QUOTA_PROJECT",
    "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE",
    "SSL_CERT_DIR",
)


def child_environment(base: Mapping[str, str], running: Running) -> dict[str, str]:
    """``base`` with the proxy, the certificate authority and the credentials of the local cloud."""
    environment = {name: value for name, value in base.items() if name not in REMOVED}
    environment.update(dict.fromkeys(PROXY_NAMES, running.proxy))
    environment.update(dict.fromkeys(NO_PROXY_NAMES, LOOPBACK))
    environment.update(dict.fromkeys(CA_NAMES, running.ca_file))
    environment.update(
        GOOGLE_APPLICATION_CREDENTIALS=running.credentials_file,
        CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE=running.credentials_file,
        GOOGLE_CLOUD_PROJECT=base.get("GOOGLE_CLOUD_PROJECT", running.project),
        CLOUDSDK_CONFIG=str(Path(running.credentials_file).parent / "gcloud"),
        NO_GCE_CHECK="true",
    )
    return environment
