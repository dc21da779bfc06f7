"""The local cloud's certificate authority and its one server certificate, kept in the state folder.

Nothing on the machine trusts it; only a program that is pointed at ``ca.pem`` does.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cloud.clock import UTC
from pipeline.cloud.state import PROJECT_NUMBER
from pipeline.rules.table import table

if TYPE_CHECKING:
    import grpc

LIFETIME = timedelta(days=365)

# A wildcard covers one label. Dedicated endpoints: ENDPOINT.REGION-PROJECT_NUMBER.prediction.vertexai.goog.
NAMES = (
    "localhost",
    "*.googleapis.com",
    "*.storage.googleapis.com",
    *(f"*.{region}-{PROJECT_NUMBER}.prediction.vertexai.goog" for region in table().regions),
)


@dataclass(frozen=True)
class Certificate:
    """Files in PEM form: the authority's certificate, the server's certificate and its private key (0600)."""

    ca_file: Path
    certificate_file: Path
    key_file: Path

    def server_context(self) -> ssl.SSLContext:
        """For servers that speak HTTP/1.1 over TLS."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate_file, self.key_file)
        context.set_alpn_protocols(["http/1.1"])
        return context

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """For gRPC servers."""
        import grpc

        pair = (self.key_file.read_bytes(), self.certificate_file.read_bytes())
        return grpc.ssl_server_credentials([pair])


def ensure_certificate(folder: Path) -> Certificate:
    """The folder's certificate, made when there is none or it has less than a day to live."""
    certificate = Certificate(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    if not _is_current(certificate):
        _make(certificate)
    return certificate


def _is_current(certificate: Certificate) -> bool:
    from cryptography import x509

    if not all(
        path.exists() for path in (certificate.ca_file, certificate.certificate_file, certificate.key_file)
    ):
        return False
    try:
        server = x509.load_pem_x509_certificate(certificate.certificate_file.read_bytes())
    except ValueError:  # cut short by a full disk
        return False
    return server.not_valid_after_utc > datetime.now(UTC) + timedelta(days=1)


def _make(certificate: Certificate) -> None:
    import trustme

    authority = trustme.CA(organization_name="marquee", organization_unit_name="marquee local cloud")
    now = datetime.now(UTC)
    server = authority.issue_cert(
        *NAMES,
        "127.0.0.1",
        common_name="localhost",
        not_before=now - timedelta(days=1),
        not_after=now + LIFETIME,
    )
    ca_pem = authority.cert_pem.bytes()
    certificate.ca_file.write_bytes(ca_pem)
    chain = [pem.bytes() for pem in server.cert_chain_pems]
    certificate.certificate_file.write_bytes(b"".join(chain) + ca_pem)
    # The authority's own key is not kept: with it, anybody could forge names for those who trust ca.pem.
    # trustme writes a file with the permissions of the umask; this one must be its owner's from the start.
    write_secret(certificate.key_file, server.private_key_pem.bytes())


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, never readable by others even for a moment."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
