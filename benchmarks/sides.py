"""Starts each side of the comparison on the same weights and gives the URL that takes its requests."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import psutil
import yaml

PEERS = Path(__file__).parent / "peers"
SHARED_PACKAGES = Path(sys.prefix) / f"lib/python3.{sys.version_info.minor}/site-packages"
BATCH = 16


class Workers(NamedTuple):
    """The worker processes of a side, and the threads of each."""

    processes: int
    threads: int

    def __str__(self) -> str:
        return f"{self.processes} x {self.threads}"


@dataclass(frozen=True)
class Side:
    """One server under test; ``start(workers)`` serves until the block ends and gives the URL for POSTs.

    ``may_rest``: it can be stopped while another side is measured.
    """

    name: str
    start: Callable[[Workers], AbstractContextManager[str]]
    may_rest: bool = False


@contextmanager
def torchserve(mar: Path, threads: int) -> Iterator[str]:
    """Real TorchServe on ``mar``, each worker with ``threads`` threads."""
    from pipeline.serving.settings import ServeOptions
    from pipeline.serving.torchserve import start

    options = ServeOptions(
        threads=threads, environment={"BENCH_THREADS": str(threads)}, warm_up=False, foreign=True
    )
    server = start(mar, options)
    try:
        yield f"{server.url}/predictions/model"
    finally:
        server.stop()


def torchserve_peer(name: str, handler: str, model: Path, folder: Path, batch: int) -> Side:
    """A baseline handler in real TorchServe."""

    def start(workers: Workers) -> AbstractContextManager[str]:
        return torchserve(_pack_peer(handler, model, folder, workers.processes, batch), workers.threads)

    return Side(name, start)


def _pack_peer(handler: str, model: Path, folder: Path, workers: int, batch: int) -> Path:
    """A model.mar of a baseline handler, made with the official torch-model-archiver."""
    stage = folder / f"{handler}-{workers}"
    shutil.rmtree(stage, ignore_errors=True)
    extra = stage / "extra"
    shutil.copytree(model, extra / "model")
    shutil.copyfile(PEERS / "drawing.py", extra / "drawing.py")
    config = stage / "model-config.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "minWorkers": workers,
                "maxWorkers": workers,
                "batchSize": batch,
                "maxBatchDelay": 1 if batch == 1 else 50,
                "responseTimeout": 600,
                "jobQueueSize": 1000,
            }
        )
    )
    (stage / "temp").mkdir()
    archiver = Path(sys.executable).with_name("torch-model-archiver")
    command = [str(archiver), "--model-name", "model", "--version", "1.0", "--force"]
    command += ["--handler", str(PEERS / f"{handler}.py"), "--extra-files", str(extra)]
    command += ["--config-file", str(config), "--export-path", str(stage)]
    # The archiver deletes <temporary folder>/model before it begins.
    subprocess.run(
        command, check=True, env={**os.environ, "TMPDIR": str(stage / "temp")}, capture_output=True
    )
    return stage / "model.mar"


def make_environment(package: str, folder: Path) -> Path | None:
    """The Python of an environment with ``package`` and this one's torch; None if it does not install."""
    home = folder / "venvs" / package.split("[")[0].split("=")[0]
    python = home / "bin" / "python"
    if (home / "ready").exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    site = home / f"lib/python3.{sys.version_info.minor}/site-packages"
    (site / "zz_shared.pth").write_text(f"{SHARED_PACKAGES}\n")
    done = subprocess.run([str(python), "-m", "pip", "install", "-q", package], capture_output=True)
    if done.returncode:
        return None
    (home / "ready").touch()
    return python


@contextmanager
def peer_process(command: list[str], model: Path, port: int, workers: Workers) -> Iterator[str]:
    """A peer's own server in its own process group, ready when it draws its first picture."""
    environment = {
        **os.environ,
        "BENCH_MODEL": str(model),
        "BENCH_WORKERS": str(workers.processes),
        "BENCH_THREADS": str(workers.threads),
        "BENCH_BATCH": str(BATCH),
        "OMP_NUM_THREADS": str(workers.threads),
        "GOMP_SPINCOUNT": "10000",  # what marquee serve gives TorchServe: PASSIVE is slower (serving.TUNED)
        "PYTHONPATH": str(PEERS),
        "PATH": f"{Path(command[0]).parent}:{os.environ['PATH']}",
    }
    process = subprocess.Popen(
        command,
        cwd=PEERS,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/predict"
    try:
        wait_for_picture(url, process)
        yield url
    finally:
        process.terminate()  # only this process: Ray's driver stops the rest of its cluster itself
        with suppress(subprocess.TimeoutExpired):
            process.wait(40)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for_picture(url: str, process: subprocess.Popen[bytes], seconds: float = 180.0) -> None:
    """Return when ``url`` has drawn one picture; NoPicture when it ends or is too slow."""
    ask = {"prompt": "a red circle", "num_inference_steps": 2, "guidance_scale": 1.5, "seed": 1}
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NoPicture(f"the server behind {url} ended with {process.returncode}")
        try:
            if httpx.post(url, json={"instances": [ask]}, timeout=60).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise NoPicture(f"no picture from {url} within {seconds:.0f} s")


@contextmanager
def resting(url: str) -> Iterator[None]:
    """Stop the process group that listens at ``url`` while the block runs."""
    port = urlsplit(url).port
    listening = [
        c.pid for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port
    ]
    group = os.getpgid(next(filter(None, listening)))
    os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(group, signal.SIGCONT)


class NoPicture(RuntimeError):
    """A peer's server ended, or drew nothing in time."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def litserve(python: Path, model: Path) -> Side:
    def start(workers: Workers) -> AbstractContextManager[str]:
        port = free_port()
        command = [str(python), str(PEERS / "litserve_app.py"), str(port), str(BATCH), "0.05"]
        return peer_process(command, model, port, workers)

    return Side("LitServe", start, may_rest=True)


def bentoml(python: Path, model: Path) -> Side:
    def start(workers: Workers) -> AbstractContextManager[str]:
        port = free_port()
        command = [str(python.with_name("bentoml")), "serve", "bentoml_app:Pictures"]
        return peer_process([*command, "--host", "127.0.0.1", "--port", str(port)], model, port, workers)

    return Side("BentoML", start, may_rest=True)


def ray_serve(python: Path, model: Path) -> Side:
    def start(workers: Workers) -> AbstractContextManager[str]:
        port = free_port()
        command = [str(python), str(PEERS / "ray_app.py"), str(port), str(BATCH), "0.05"]
        return peer_process(command, model, port, workers)

    return Side("Ray Serve", start)
