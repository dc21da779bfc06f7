"""The image's entry point: fetch model.mar, write the settings, become TorchServe. Standard library only.

The archive comes from AIP_STORAGE_URI (a gs:// folder, as Vertex AI sets it, or a local one); without it from
/models. The port is AIP_HTTP_PORT, 8080 where that is not set.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path

MARQUEE = Path("/opt/marquee")
MODELS = Path("/models")
METADATA_TOKEN = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"
STORAGE = "https://storage.googleapis.com"
TIMEOUT_SECONDS = 60
COPY_BYTES = 8 << 20
# As in pipeline/serving/settings.py, which is not in the image.
MAX_REQUEST_BYTES = 16_777_216
MAX_RESPONSE_BYTES = 67_108_864
LARGEST_PORT = 65535
OTHER_PORTS = (8082, 7070, 7071, 8083)
UNREACHABLE = "127.255.255.255"


def main(environment: Mapping[str, str], home: Path) -> list[str]:
    """Prepare ``home`` and return the command that serves."""
    store = home / "model-store"
    store.mkdir(parents=True, exist_ok=True)
    source = environment.get("AIP_STORAGE_URI") or str(MODELS)
    place_archive(source, store / "model.mar", environment.get("STORAGE_EMULATOR_HOST", STORAGE))
    control = home / "control"
    control.mkdir(mode=0o700, exist_ok=True)
    config = home / "config.properties"
    config.write_text(config_properties(environment.get("AIP_HTTP_PORT", "8080"), store, control))
    return [
        *(sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--ncs"),
        *("--model-store", str(store), "--models", "model=model.mar", "--ts-config", str(config)),
    ]


def config_properties(port: str, store: Path, control: Path) -> str:
    """TorchServe's settings: inference on every address, metrics on loopback, all else closed.

    The management API has no password of its own, so it listens on a socket file in ``control``.
    """
    metrics, grpc_inference, grpc_management = other_ports(port)
    grpc = grpc_address()
    flags = "-XX:+IgnoreUnrecognizedVMOptions --enable-native-access=ALL-UNNAMED"
    # Refuses a second request on a connection whose first has no answer yet (docs/security.md).
    flags += " -ea:org.pytorch.serve.util.NettyUtils"
    # A sixteenth of the memory is Java's: it takes a quarter otherwise, which multipart bodies fill.
    flags += " -XX:MaxRAMPercentage=6.25"
    log = f"-Dlog4j.configurationFile={MARQUEE / 'log4j2.xml'}"
    return "\n".join(
        [
            f"inference_address=http://0.0.0.0:{port}",
            f"management_address=unix:{control / 'management.sock'}",
            f"metrics_address=http://127.0.0.1:{metrics}",
            f"grpc_inference_address={grpc}",
            f"grpc_management_address={grpc}",
            f"grpc_inference_port={grpc_inference}",
            f"grpc_management_port={grpc_management}",
            "disable_token_authorization=true",
            f"max_request_size={MAX_REQUEST_BYTES}",
            f"max_response_size={MAX_RESPONSE_BYTES}",
            # No archive is fetched from anywhere, nothing is a workflow: both would run others' Python.
            "allowed_urls=none",
            "workflow_store=/dev/null",
            "metrics_mode=prometheus",
            "model_metrics_auto_detect=true",
            "disable_system_metrics=true",
            f"model_store={store}",
            "load_models=model=model.mar",
            f"vmargs={flags} --sun-misc-unsafe-memory-access=allow {log}",
            "",
        ]
    )


def other_ports(port: str) -> list[int]:
    """The ports of metrics and of the two gRPC servers, none of them ``port``; ends the process."""
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= LARGEST_PORT):
        sys.exit(f"AIP_HTTP_PORT is {port!r}: it must be a port from 1 to {LARGEST_PORT}")
    return [other for other in OTHER_PORTS if other != int(port)][:3]


def grpc_address() -> str:
    """A broadcast address, to which nobody can connect (ENETUNREACH); loopback where it cannot be bound.

    TorchServe's gRPC servers, one of them a second management API, cannot be switched off.
    """
    with socket.socket() as listener:
        try:
            listener.bind((UNREACHABLE, 0))
        except OSError:
            return "127.0.0.1"
    return UNREACHABLE


def place_archive(source: str, target: Path, storage: str) -> None:
    """Link or download ``source``/model.mar to ``target``; ends the process where there is none."""
    if source.startswith("gs://"):
        download(source.rstrip("/") + "/model.mar", target, storage)
        return
    archive = Path(source) / "model.mar"
    if not archive.is_file():
        sys.exit(
            f"{archive} does not exist: mount a folder with model.mar at {MODELS} or set AIP_STORAGE_URI"
        )
    target.unlink(missing_ok=True)
    target.symlink_to(archive)


def download(uri: str, target: Path, storage: str) -> None:
    """Copy one Cloud Storage object to a file, as the container's own service account."""
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    quoted = urllib.parse.quote(name, safe="")
    headers = {"Authorization": f"Bearer {access_token()}"} if storage == STORAGE else {}
    request = urllib.request.Request(f"{storage}/storage/v1/b/{bucket}/o/{quoted}?alt=media", headers=headers)
    partial = target.with_suffix(".part")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer, partial.open("wb") as file:
            while chunk := answer.read(COPY_BYTES):
                file.write(chunk)
            expected = int(answer.headers.get("Content-Length") or file.tell())
            if file.tell() != expected:
                sys.exit(f"{uri} broke off after {file.tell()} of {expected} bytes")
    except urllib.error.HTTPError as error:
        sys.exit(f"{uri} cannot be read: {error.code} {error.reason}")
    partial.replace(target)


def access_token() -> str:
    """The token of the service account that the container runs as."""
    request = urllib.request.Request(METADATA_TOKEN, headers={"Metadata-Flavor": "Google"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        return str(json.load(answer)["access_token"])


if __name__ == "__main__":
    command = main(os.environ, Path.home())
    os.execv(command[0], command)
