"""The real local cloud in this process; painters, small real servers of our contract, are its containers.

A painter reads the archive it was given and draws in milliseconds, so that a whole deployment takes a second.
"""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from pipeline.archive.digests import parse_sums, weights_digest
from pipeline.archive.layout import bytes_member
from pipeline.archive.manifest import manifest_bytes
from pipeline.archive.writer import write_archive as write_mar
from pipeline.cloud.accounts import AccountsServer
from pipeline.cloud.certificates import ensure_certificate
from pipeline.cloud.clock import Clock
from pipeline.cloud.credentials import account_key, write_credentials
from pipeline.cloud.faults import Fault, FaultBook, parse_fault
from pipeline.cloud.state import CloudFolder, Running
from pipeline.cloud.storage.objects import ObjectStore
from pipeline.cloud.storage.server import StorageServer
from pipeline.cloud.tokens import Keys, Tokens
from pipeline.cloud.vertex.containers import Container, ContainerSpec, NeverReady, is_healthy
from pipeline.cloud.vertex.server import start_vertex
from pipeline.cloud.vertex.torchserve_container import start_torchserve
from pipeline.deploy.config import DeployConfig
from pipeline.progress import Silent

SETTINGS = {
    "defaults": {"width": 64, "height": 64, "num_inference_steps": 20, "output_format": "png"},
    "limits": {"max_instances": 4},
}

Configure = Callable[..., DeployConfig]  # a checked configuration with some values changed


def write_archive(
    path: Path,
    weights: bytes = b"weights",
    extra: dict[str, bytes] | None = None,
    settings: dict[str, Any] | None = None,
) -> Path:
    """An archive laid out as `marquee build` does it, too small to draw with; the painters do not mind."""
    config = json.dumps({"minWorkers": 1, "marquee": settings or SETTINGS}).encode()
    members = {
        "marquee_handler.py": b"from handler.torchserve import Handler\n",
        "handler/__init__.py": b"",
        "model-config.yaml": config,
        "model/model_index.json": b"{}",
        "model/unet/diffusion_pytorch_model.safetensors": safetensors(weights),
        "MAR-INF/MANIFEST.json": manifest_bytes(),
        **(extra or {}),
    }
    write_mar(path, [bytes_member(name, content) for name, content in members.items()], Silent())
    return path


def safetensors(weights: bytes) -> bytes:
    """One tensor of bytes, in the format's own framing."""
    tensor = {"dtype": "U8", "shape": [len(weights)], "data_offsets": [0, len(weights)]}
    header = json.dumps({"weights": tensor}).encode()
    return len(header).to_bytes(8, "little") + header + weights


def mar_text(path: Path, name: str) -> str:
    with zipfile.ZipFile(path) as mar:
        return mar.read(name).decode()


class CallBook(FaultBook):
    """The cloud's faults, which each call is held against: so it can count calls, and kill the caller."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.calls: list[str] = []
        self.kill_after: int | None = None
        self.victim: int | None = None

    def take(self, name: str, target: str) -> Fault | None:
        if name in ("permission-denied", "storage-permission-denied"):
            self.calls.append(target)
            if self.victim is not None and len(self.calls) == self.kill_after:
                os.kill(self.victim, signal.SIGKILL)
        return super().take(name, target)


class _Brush(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        token_wanted = {"code": 400, "type": "InvalidKeyException", "message": "Token Authorization failed."}
        self._answer(*((200, {"status": "Healthy"}) if self.server.painter.healthy else (400, token_wanted)))

    def do_POST(self) -> None:
        instances = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["instances"]
        painter: Painter = self.server.painter
        painter.instances += instances
        time.sleep(painter.seconds)
        if painter.refusal:
            self._answer(*painter.refusal)
        elif painter.padding:
            self._answer(200, {"predictions": ["x" * painter.padding]})
        else:
            self._answer(200, {"predictions": [painter.paint(instance) for instance in instances]})

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@dataclass
class Painter:
    """One replica. ``swapped`` pretends that other weights are in memory; ``refusal`` answers everything;
    ``seconds`` is how long a picture takes."""

    digest: str
    server: Any = None
    swapped: str = ""
    flat: bool = False
    refusal: tuple[int, dict[str, Any]] | None = None
    healthy: bool = True
    padding: int = 0
    seconds: float = 0.0
    instances: list[Any] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def is_running(self) -> bool:
        return True

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def paint(self, instance: Any) -> Any:
        receipt = {"weights_digest": self.swapped or self.digest, "seed": instance.get("seed", 0)}
        if instance.get("describe"):
            return receipt
        picture = Image.new("RGB", (64, 64), "white")
        if not self.flat:
            seed = int(instance.get("seed", 0))
            picture.paste((seed % 256, int(self.digest[:2], 16), 80), (0, 0, 32, 64))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        encoded = base64.b64encode(buffer.getvalue()).decode()
        return {"image": encoded, "receipt": receipt} if instance.get("response") == "full" else encoded


@dataclass
class RehearsalCloud:
    """A running cloud. Change ``painter`` to make the next replicas behave otherwise."""

    folder: CloudFolder
    book: CallBook
    running: Running
    painter: dict[str, Any] = field(default_factory=dict)
    painters: list[Painter] = field(default_factory=list)
    start_seconds: float = 0.0

    def fault(self, text: str) -> None:
        self.book.set(parse_fault(text))

    def start_container(self, spec: ContainerSpec, stop: threading.Event) -> Container:
        with zipfile.ZipFile(spec.archive) as mar:
            names = mar.namelist()
            sums = (
                parse_sums(mar.read("MAR-INF/SHA256SUMS").decode()) if "MAR-INF/SHA256SUMS" in names else {}
            )
        time.sleep(self.start_seconds)
        if "broken.txt" in names:
            raise NeverReady([mar_text(spec.archive, "broken.txt") or "No module named 'diffusers'"])
        if not sums:  # somebody else's archive needs the real thing
            return start_torchserve(spec, stop)
        painter = Painter(weights_digest(sums), **self.painter)
        painter.server = ThreadingHTTPServer(("127.0.0.1", 0), _Brush)
        painter.server.painter = painter
        threading.Thread(target=painter.server.serve_forever, args=(0.02,), daemon=True).start()
        self.painters.append(painter)
        if not is_healthy(painter.url + spec.health_route):
            painter.stop()
            raise NeverReady(["/ping answers 400 InvalidKeyException"])
        return painter


@contextmanager
def rehearsal_cloud(path: Path, date: datetime | None = None, speed: float = 1.0) -> Iterator[RehearsalCloud]:
    """Storage, Vertex AI and accounts on loopback; recorded in the folder, so that `marquee` finds it."""
    folder = CloudFolder(path)
    folder.make()
    certificate = ensure_certificate(folder.certificates)
    key = account_key(path / "credentials.json")
    keys = Keys(certificate, Tokens(key))
    book = CallBook(folder.faults)
    cloud = RehearsalCloud(folder, book, running=None)  # type: ignore[arg-type]
    with ExitStack() as stack:
        store = ObjectStore(folder.storage)
        stack.callback(store.close)
        storage = StorageServer(store, book, keys.tokens)
        stack.callback(storage.stop)
        clock = Clock(speed, date)
        vertex = start_vertex(store, folder.vertex, keys, book, clock, start_container=cloud.start_container)
        stack.callback(vertex.stop)
        accounts = AccountsServer(keys)
        stack.callback(accounts.stop)
        write_credentials(path / "credentials.json", f"{accounts.url}/token", key)
        cloud.running = Running(
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            storage=storage.url,
            vertex_rest=vertex.rest_url,
            vertex_grpc=vertex.grpc_address,
            dedicated=vertex.dedicated_address,
            proxy="http://127.0.0.1:1",
            accounts=accounts.url,
            ca_file=str(certificate.ca_file),
            credentials_file=str(path / "credentials.json"),
            project="marquee-local",
        )
        folder.record(cloud.running)
        stack.callback(folder.forget)
        yield cloud
