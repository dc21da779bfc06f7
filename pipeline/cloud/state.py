"""The folder in which a local cloud keeps everything, so that it survives a restart."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.environment import read_environment
from pipeline.errors import MarqueeError

PROJECT = "marquee-local"
PROJECT_NUMBER = "123456789012"
_LOCK_ATTEMPTS, _LOCK_PAUSE = 5, 0.05  # seconds


@dataclass(frozen=True)
class Running:
    """The addresses of a running local cloud, on loopback. ``vertex_grpc`` is host:port and speaks TLS."""

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
    """Paths inside the folder, and the record of the process that serves it; only ``make`` makes them."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = _absolute(path or read_environment().cloud_folder)
        self.log = self.path / "cloud.log"
        self.faults = self.path / "faults.json"
        self.credentials = self.path / "credentials.json"
        self.certificates = self.path / "certificates"
        self.storage = self.path / "storage"
        self.vertex = self.path / "vertex"  # owned by pipeline.cloud.vertex

    def make(self) -> None:
        """Make the folder and its parts, mode 0700; raises MarqueeError where that fails or is not safe."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            for folder in (self.certificates, self.storage, self.vertex):
                folder.mkdir(exist_ok=True, mode=0o700)
            found = self.path.stat()
        except OSError as error:
            raise self.unusable(error) from None
        if found.st_uid != os.geteuid() or found.st_mode & stat.S_IWOTH:
            raise MarqueeError(
                f"the state folder {self.path} belongs to another user or can be written by all; "
                "whoever writes there decides what runs here",
                cure="another --state, or: chmod o-w " + str(self.path),
            )

    def check(self) -> None:
        """Raises MarqueeError when the path cannot be a folder; one that is not there yet can."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self.unusable(error) from None
        if not stat.S_ISDIR(found.st_mode):
            raise self.unusable(NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))

    def is_made(self) -> bool:
        """Whether a cloud was ever made in this folder."""
        return all(part.is_dir() for part in (self.certificates, self.storage, self.vertex))

    def unusable(self, error: OSError) -> MarqueeError:
        """The error for a folder that cannot be read or written."""
        return MarqueeError(
            f"the state folder {self.path} cannot be used: {error.strerror or error}",
            cure="another --state: a folder that you may write, on a disk with room",
        )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one server process; raises MarqueeError when another holds it."""
        with contextlib.ExitStack() as stack:
            try:
                descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                stack.callback(os.close, descriptor)
                taken = _take(descriptor)
            except OSError as error:
                raise self.unusable(error) from None
            if not taken:
                raise MarqueeError(
                    f"a local cloud already runs in {self.path}",
                    cure="marquee cloud down, or another --state",
                )
            yield

    def is_locked(self) -> bool:
        """Whether a server holds the folder, ready or not. Creates no file."""
        return is_lock_held(self.path / "lock")

    def running(self) -> Running | None:
        """The cloud that serves this folder now, or None."""
        record = self.read("running.json")
        if record is None:
            return None
        try:
            running = Running(**record)
            alive = port_of(running.storage) > 0 and is_alive(running.pid, running.started)
        except (TypeError, ValueError, AttributeError, OverflowError):
            raise MarqueeError(
                f"{self.path / 'running.json'} is broken", cure=f"delete {self.path / 'running.json'}"
            ) from None
        return running if alive else None

    def record(self, running: Running) -> None:
        self.write("running.json", asdict(running))
        names = ("storage", "vertex_rest", "vertex_grpc", "dedicated", "proxy", "accounts")
        self.write("ports.json", {name: port_of(getattr(running, name)) for name in names})

    def free_port(self, name: str) -> int:
        """The port that a server had when the cloud last ran in this folder, or 0 if that is gone."""
        port = (self.read("ports.json") or {}).get(name, 0)
        if not isinstance(port, int) or not 0 < port < 65536:
            return 0
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
        """The JSON object in a file of this folder, or None when there is none; raises MarqueeError."""
        path = self.path / name
        try:
            value = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self.unusable(error) from None
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise MarqueeError(f"{path} is broken: no JSON object", cure=f"delete {path}")
        return value

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Replace a JSON file of this folder in one step; raises MarqueeError."""
        try:
            write_whole(self.path / name, json.dumps(value, indent=1))
        except OSError as error:
            raise self.unusable(error) from None


def write_whole(target: Path, text: str) -> None:
    """Replace a file in one step by one that its owner alone may read; a full disk leaves the old one."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "w") as file:
            file.write(text)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def is_lock_held(path: Path) -> bool:
    """Whether a process holds this lock; looking makes no file."""
    try:
        with open(path) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _take(descriptor: int) -> bool:
    """Lock, without waiting for a holder; others may look whether it is held, which takes a moment."""
    for attempt in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE * (attempt + 1 < _LOCK_ATTEMPTS))
        else:
            return True
    return False


def _absolute(path: Path) -> Path:
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:  # ~nobody-of-this-name
        raise MarqueeError(f"the state folder {str(path)!r}: {error}", cure="another --state") from None


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
