"""The local cloud as one process: run here until told to stop, or started detached and found again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil

from pipeline.cloud.faults import FaultBook, parse_fault
from pipeline.cloud.state import PROJECT, CloudFolder, Running, port_of
from pipeline.errors import MarqueeError

START_SECONDS = 120.0
STOP_SECONDS = 60.0
LOG_LINES = 15


@dataclass(frozen=True)
class CloudOptions:
    """How a cloud runs: ``speed`` times as fast as time, from ``date`` (today) on, with these faults."""

    speed: float = 1.0
    date: datetime | None = None
    faults: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """The same, for the command line of another process."""
        date = ["--date", self.date.date().isoformat()] if self.date else []
        faults = [word for fault in self.faults for word in ("--fault", fault)]
        return ["--speed", str(self.speed), *date, *faults]


def serve(folder: CloudFolder, options: CloudOptions, ready: Callable[[Running], None]) -> None:
    """Run the cloud in this process until SIGTERM or SIGINT; call it from the main thread."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with folder.locked():
        end_orphans(folder)
        with running_servers(folder, options) as running:
            folder.record(running)
            ready(running)
            stop.wait()
            folder.forget()


@contextlib.contextmanager
def running_servers(folder: CloudFolder, options: CloudOptions) -> Iterator[Running]:
    """All servers of the cloud, each on the port it had before if that is free."""
    from pipeline.cloud.accounts import AccountsServer
    from pipeline.cloud.certificates import ensure_certificate
    from pipeline.cloud.clock import Clock
    from pipeline.cloud.credentials import account_key, write_credentials
    from pipeline.cloud.proxy import Backend, Proxy
    from pipeline.cloud.storage.objects import ObjectStore
    from pipeline.cloud.storage.server import StorageServer
    from pipeline.cloud.tokens import Keys, Tokens
    from pipeline.cloud.vertex.server import VertexPorts, start_vertex

    credentials = folder.path / "credentials.json"
    key = account_key(credentials)
    keys = Keys(ensure_certificate(folder.certificates), Tokens(key))
    certificate = keys.certificate
    faults = _fault_book(folder, options)
    port = folder.free_port
    with contextlib.ExitStack() as stack:
        store = ObjectStore(folder.storage)
        stack.callback(store.close)
        storage = StorageServer(store, faults, keys.tokens, port("storage"))
        stack.callback(storage.stop)
        ports = VertexPorts(port("vertex_rest"), port("vertex_grpc"), port("dedicated"))
        clock = Clock(options.speed, options.date)
        vertex = start_vertex(store, folder.vertex, keys, faults, clock, ports)
        stack.callback(vertex.stop)
        accounts = AccountsServer(keys, port("accounts"))
        stack.callback(accounts.stop)
        backends = {
            "storage": Backend(loopback(storage.url)),
            "vertex": Backend(loopback(vertex.rest_url), loopback(vertex.grpc_address)),
            "accounts": Backend(loopback(accounts.url), ("127.0.0.1", accounts.grpc_port)),
        }
        proxy = Proxy(backends, certificate, port("proxy"))
        stack.callback(proxy.stop)
        write_credentials(credentials, f"{accounts.url}/token", key)
        yield Running(
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            storage=storage.url,
            vertex_rest=vertex.rest_url,
            vertex_grpc=vertex.grpc_address,
            dedicated=vertex.dedicated_address,
            proxy=proxy.url,
            accounts=accounts.url,
            ca_file=str(certificate.ca_file),
            credentials_file=str(credentials),
            project=PROJECT,
        )


def _fault_book(folder: CloudFolder, options: CloudOptions) -> FaultBook:
    faults = FaultBook(folder.faults)
    for text in options.faults:
        faults.set(parse_fault(text))
    return faults


def start(folder: CloudFolder, options: CloudOptions) -> Running:
    """Start the cloud detached, unless it runs, and wait until it answers. Its output goes to the log."""
    running = folder.running()
    if running:
        return running
    command = [sys.executable, "-m", "pipeline", "cloud", "up", "--foreground", "--state", str(folder.path)]
    with open(folder.log, "ab") as log:
        process = subprocess.Popen(
            [*command, *options.arguments()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        running = folder.running()
        if running:
            # Another `up` may have been quicker: then that cloud is the answer, and ours has ended.
            return running
        if process.poll() is not None and not folder.is_locked():
            raise MarqueeError(f"the local cloud ended as it started:\n{last_lines(folder.log)}")
        time.sleep(0.05)
    process.terminate()
    raise MarqueeError(
        f"the local cloud was not ready after {START_SECONDS:.0f} s:\n{last_lines(folder.log)}"
    )


def stop(folder: CloudFolder) -> bool:
    """Stop the cloud and all that it started; returns whether it ran."""
    running = folder.running()
    if running is not None:
        process = psutil.Process(running.pid)
        started = process.children(recursive=True)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
        _, alive = psutil.wait_procs([process], STOP_SECONDS)
        # What the server has not ended itself by now, it never will.
        kill([*alive, *started])
        folder.forget()
    end_orphans(folder)
    return running is not None


def reset(folder: CloudFolder) -> None:
    """Stop the cloud and forget everything but its keys and ports, which programs may still be pointed at."""
    stop(folder)
    with folder.locked():
        for part in (folder.storage, folder.vertex):
            shutil.rmtree(part)
            part.mkdir(mode=0o700)
        folder.faults.unlink(missing_ok=True)
        folder.log.unlink(missing_ok=True)


def end_orphans(folder: CloudFolder) -> None:
    """End the replicas that a killed cloud left behind: they work inside the folder's vertex part."""
    kill([process for process in psutil.process_iter() if _works_in(process, folder.vertex)])


def _works_in(process: psutil.Process, folder: Path) -> bool:
    """A shell or an editor in that folder is somebody's own: only what TorchServe consists of counts."""
    try:
        place, words, name = Path(process.cwd()), process.cmdline(), process.name()
    except (psutil.Error, OSError):
        return False
    inside = place == folder or folder in place.parents or any(f"{folder}{os.sep}" in word for word in words)
    return inside and name.startswith(("java", "python")) and process.pid != os.getpid()


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, 10)


def loopback(address: str) -> tuple[str, int]:
    return "127.0.0.1", port_of(address)


def last_lines(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(lines[-LOG_LINES:])
