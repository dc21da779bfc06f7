"""The folder in which a local cloud keeps everything, so that it survives a restart."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import MarqueeError

PROJECT = "marquee-local"
PROJECT_NUMBER = "123456789012"


def default_path() -> Path:
    """The folder of the local cloud: $MARQUEE_CLOUD, or ~/.marquee/cloud."""
    return Path(os.environ.get("MARQUEE_CLOUD") or Path.home() / ".marquee" / "cloud")


@dataclass(frozen=True)
class Running:
    """Where a running local cloud answers. URLs are loopback; ``vertex_grpc`` is host:port and speaks TLS."""

    pid: int
    started: float  # the process's creation time: a pid alone may have been reused
    storage: str
    vertex_rest: str
    vertex_grpc: str
    dedicated: str  # host:port that dedicated endpoints give as their DNS name; TLS
    proxy: str
    accounts: str
    ca_file: str
    credentials_file: str
    project: str


class CloudFolder:
    """Paths inside the folder, and the record of the process that serves it. Makes the folder, mode 0700."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = (path or default_path()).expanduser().absolute()
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.log = self.path / "cloud.log"
        self.faults = self.path / "faults.json"
        self.certificates = self._folder("certificates")
        self.storage = self._folder("storage")
        self.vertex = self._folder("vertex")  # owned by pipeline.cloud.vertex

    def _folder(self, name: str) -> Path:
        folder = self.path / name
        folder.mkdir(exist_ok=True, mode=0o700)
        return folder

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one server process; raises MarqueeError when another holds it."""
        with open(self.path / "lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise MarqueeError(
                    f"a local cloud already runs in {self.path}",
                    cure="marquee cloud down, or another --state",
                ) from None
            yield

    def is_locked(self) -> bool:
        """Whether a server holds the folder, ready or not."""
        try:
            with self.locked():
                return False
        except MarqueeError:
            return True

    def running(self) -> Running | None:
        """The cloud that serves this folder now, or None."""
        record = self.read("running.json")
        if record is None:
            return None
        running = Running(**record)
        return running if is_alive(running.pid, running.started) else None

    def record(self, running: Running) -> None:
        self.write("running.json", asdict(running))
        names = ("storage", "vertex_rest", "vertex_grpc", "dedicated", "proxy", "accounts")
        self.write("ports.json", {name: port_of(getattr(running, name)) for name in names})

    def free_port(self, name: str) -> int:
        """The port that a server had when the cloud last ran in this folder, or 0 if that is gone."""
        port = int((self.read("ports.json") or {}).get(name, 0))
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return 0
        return port

    def forget(self) -> None:
        """Remove the record of the process, as the last thing a server does."""
        (self.path / "running.json").unlink(missing_ok=True)

    def read(self, name: str) -> dict[str, Any] | None:
        """The JSON object in a file of this folder, or None when there is none."""
        try:
            value: dict[str, Any] = json.loads((self.path / name).read_text())
        except FileNotFoundError:
            return None
        return value

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Replace a JSON file of this folder in one step."""
        target = self.path / name
        temporary = target.with_name(f".{name}.{os.getpid()}")
        temporary.write_text(json.dumps(value, indent=1))
        temporary.replace(target)


def port_of(address: str) -> int:
    return int(address.rsplit(":", 1)[1])


def is_alive(pid: int, started: float) -> bool:
    """Whether the process with this id is still the one created at ``started`` (seconds since 1970)."""
    import psutil

    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
