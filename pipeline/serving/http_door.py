"""One archive behind its own HTTP door, without TorchServe and Java: ``start_http`` and ``server.stop``."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pipeline.archive.verification import verified_copy
from pipeline.environment import read_environment
from pipeline.errors import MarqueeError
from pipeline.serving.environment import INHERITED, usable_cores
from pipeline.serving.preflight import check_archive, check_folder, check_machine
from pipeline.serving.server import CALLABLE
from pipeline.serving.settings import ServeOptions
from pipeline.serving.work_folder import WorkFolder, make_work_folder, sweep_work_folders

POLL_SECONDS = 0.1
SHOWN_LINES = 25
STOP_SECONDS = 15.0


@dataclass(frozen=True)
class HttpServer:
    """The door's process; ``folder`` holds the unpacked archive and the log, and goes with the server."""

    options: ServeOptions
    port: int
    folder: WorkFolder
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """Where every route is asked."""
        address = self.options.bind_address
        return f"http://{CALLABLE.get(address, address)}:{self.port}"

    @property
    def predict_url(self) -> str:
        """The address of the served model."""
        return f"{self.url}/predictions/{self.options.model_name}"

    @property
    def log(self) -> Path:
        """What the door's process writes."""
        return self.folder.path / "door.log"

    def is_running(self) -> bool:
        """Whether the process lives."""
        return self.process.poll() is None

    def stop(self, drain_seconds: float = 0.0) -> bool:
        """Ends the process; new requests get 503 and running ones may take ``drain_seconds``.

        Answers whether they ended in time. May be called twice.
        """
        drained = True
        if self.is_running():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(drain_seconds + STOP_SECONDS)
            except subprocess.TimeoutExpired:
                drained = False
                self.process.kill()
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()
        self.folder.remove()
        return drained


def start_http(mar: Path, options: ServeOptions | None = None) -> HttpServer:
    """Unpack a verified copy of the archive, run its door, and wait until it has drawn its warm-up picture.

    Raises MarqueeError where the archive, the port or this machine will not do, or the door ends.
    """
    options = options or ServeOptions()
    archive = check_archive(mar)
    sweep_work_folders()
    with ExitStack() as undo:
        folder = make_work_folder()
        undo.callback(folder.remove)
        check_folder(folder.path, archive)
        check_machine(archive)
        root = _unpack(mar, folder.path)
        port = _free_port(options)
        server = HttpServer(options, port, folder, _start(root, port, options))
        undo.callback(server.stop)
        _wait_until_ready(server)
        undo.pop_all()
    return server


def _unpack(mar: Path, folder: Path) -> Path:
    copy, root = folder / "model.mar", folder / "archive"
    verified_copy(mar, copy)
    with zipfile.ZipFile(copy) as archive:
        archive.extractall(root)
    copy.unlink()
    if not (root / "handler" / "doors" / "http").is_dir():
        raise MarqueeError(f"{mar} has no HTTP door: it is from an older marquee", "build it: marquee build")
    return root


def _free_port(options: ServeOptions) -> int:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((options.bind_address, options.port))
        except OSError as error:
            raise MarqueeError(
                f"port {options.port} on {options.bind_address} cannot be taken: {error.strerror or error}",
                "take another with --port, or 0 for any free one",
            ) from error
        return int(listener.getsockname()[1])


def _start(root: Path, port: int, options: ServeOptions) -> subprocess.Popen[bytes]:
    inherited = read_environment().variables
    own = {name: value for name, value in inherited.items() if name.startswith("MARQUEE_")}
    environment = {
        **{name: inherited[name] for name in INHERITED if name in inherited},
        **own,
        "PYTHONPATH": str(root),
        "TMPDIR": str(root.parent),
        "OMP_NUM_THREADS": str(options.threads or usable_cores()),
        "GOMP_SPINCOUNT": "10000",  # as in server_environment
        "PYTHONUNBUFFERED": "1",
        **options.environment,
    }
    command = [str(options.python or sys.executable), "-m", "handler.doors.http", "--root", str(root)]
    command += ["--bind", options.bind_address, "--port", str(port)]
    command += ["--model-name", options.model_name, "--end-with-stdin"]
    with (root.parent / "door.log").open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=root,
            env=environment,
            stdin=subprocess.PIPE,  # held open: the door ends with this process
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait_until_ready(server: HttpServer) -> None:
    import httpx

    deadline = time.monotonic() + server.options.start_seconds
    while time.monotonic() < deadline:
        if not server.is_running():
            raise _failure(server, f"the HTTP door ended with code {server.process.returncode}")
        try:
            if httpx.get(f"{server.url}/ping", timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(POLL_SECONDS)
    raise _failure(server, f"the HTTP door was not ready within {server.options.start_seconds:.0f} s")


def _failure(server: HttpServer, what: str) -> MarqueeError:
    lines = server.log.read_text(encoding="utf-8", errors="replace").splitlines()[-SHOWN_LINES:]
    return MarqueeError("\n".join([what, *(f"  | {line}" for line in lines)]))
