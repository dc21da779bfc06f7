"""The README's commands and examples, run as they are printed."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from PIL import Image

from pipeline.client import Client
from pipeline.serving.server import RunningServer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PLAIN_PORTS = (8080, 8081, 8082, 7070, 7071)
LIMIT_SECONDS = 300


def blocks(heading: str, language: str) -> list[str]:
    """The fenced blocks of one section."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


def taken(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A folder that looks like the clone after make env, with nothing built in it."""
    if busy := [port for port in PLAIN_PORTS if taken(port)]:
        pytest.skip(f"the README's ports are taken on this machine: {busy}")
    shutil.copytree(
        ROOT / "model_artifacts", tmp_path / "model_artifacts", ignore=shutil.ignore_patterns("*.mar")
    )
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    (tmp_path / "tmp").mkdir()
    yield tmp_path
    run(project=tmp_path, commands="torchserve --stop >/dev/null 2>&1 || true")
    _wait_until_free(PLAIN_PORTS)


def _wait_until_free(ports: Sequence[int]) -> None:
    """`torchserve --stop` asks TorchServe to end and does not wait; the next test needs the same ports."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while any(map(taken, ports)) and time.monotonic() < deadline:
        time.sleep(0.2)


@contextmanager
def shell(project: Path, commands: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The commands in bash, in the activated environment."""
    output = project / "tmp" / "output.txt"
    environment = {
        "HOME": os.environ["HOME"],
        "PATH": "/usr/bin:/bin",
        "TMPDIR": str(project / "tmp"),
        "MARQUEE_CLOUD": str(project / "tmp" / "cloud"),
    }
    script = f"set -euo pipefail\n. .venv/bin/activate\n{commands}"
    with output.open("wb") as file:
        process = subprocess.Popen(
            ["bash", "-c", script],
            cwd=project,
            env=environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield process, output
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(LIMIT_SECONDS)


def run(project: Path, commands: str) -> str:
    with shell(project, commands) as (process, output):
        code = process.wait(LIMIT_SECONDS)
        text = output.read_text(errors="replace")
        assert code == 0, text
        return text


@pytest.mark.torchserve
def test_plain_torchserve_returns_a_picture(project: Path) -> None:
    build = blocks("Build, serve, ask", "sh")[0]
    (plain,) = blocks("Plain TorchServe", "sh")
    text = run(project, build + plain)
    assert "TorchServe has stopped." in text
    with Image.open(project / "out" / "circle.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (64, 64))
    assert "a red circle" not in text


@pytest.mark.torchserve
def test_serve_and_predict(project: Path) -> None:
    build, serve, predict = blocks("Build, serve, ask", "sh")
    run(project, build)
    with shell(project, f"exec {serve}") as (server, output):
        deadline = time.monotonic() + LIMIT_SECONDS
        while "ready at" not in output.read_text() and server.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        (project / "asking").mkdir()
        (project / "asking" / "tmp").mkdir()
        (project / "asking" / ".venv").symlink_to(ROOT / ".venv")
        run(project / "asking", predict)
    names = sorted(path.name for path in (project / "asking" / "out").iterdir())
    assert names == ["picture.jpg", "pictures-1.png", "pictures-2.png"]


@pytest.mark.torchserve
def test_receipts_are_kept_and_replayed(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    (receipts,) = blocks("Receipts", "sh")
    here = re.sub(r"marquee (predict|replay)", rf"marquee \1 --url {server.url}", receipts)
    text = run(tmp_path, here)
    assert "the same pixels, bit by bit" in text or "is the tolerance" in text
    assert {"green-1.png", "green-2.png", "receipts.json"} <= {
        one.name for one in (tmp_path / "out").iterdir()
    }


def test_the_http_door_answers_openais_client(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(project, blocks("Build, serve, ask", "sh")[0])
    (serve,), (example,) = blocks("The HTTP door", "sh"), blocks("The HTTP door", "python")
    monkeypatch.chdir(project)
    with shell(project, f"exec {serve}") as (server, output):
        deadline = time.monotonic() + LIMIT_SECONDS
        while "ready at" not in output.read_text() and server.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        exec(example, {})
    with Image.open(project / "out" / "openai.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (64, 64))


@pytest.mark.torchserve
@pytest.mark.slow
def test_to_the_cloud_and_back(project: Path) -> None:
    shutil.copytree(ROOT / "docs", project / "docs")
    (cloud,) = blocks("To the cloud", "sh")
    run(project, blocks("Build, serve, ask", "sh")[0] + cloud)
    with Image.open(project / "out" / "endpoint.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (64, 64))


def test_the_requests_example_is_answered(server: RunningServer) -> None:
    (example,) = blocks("The contract", "json")
    answer = httpx.post(server.predict_url, json=json.loads(example), timeout=LIMIT_SECONDS)
    assert answer.status_code == 200
    assert len(answer.json()["predictions"]) == 2


def test_the_python_example_saves_a_picture(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = blocks("The contract", "python")
    monkeypatch.chdir(tmp_path)
    exec(example.replace("http://127.0.0.1:8080", server.url), {})
    with Image.open(tmp_path / "out" / "picture.jpg") as picture:
        assert picture.format == "JPEG"


def test_every_picture_and_file_that_the_readme_names_is_there() -> None:
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    documents = re.findall(r"`((?:docs|pipeline|model_artifacts)/[\w./-]+\.\w+)`", README)
    assert {"docs/demo.png", "docs/benchmarks/latency.png"} <= set(pictures)
    made_by_a_command = {"model_artifacts/model.mar"}
    assert [name for name in {*pictures, *documents} - made_by_a_command if not (ROOT / name).is_file()] == []


def test_every_field_of_the_table_is_known_to_the_server(client: Client) -> None:
    rows = re.findall(r"^\| (`.*?`) \|", README.split("\n## The contract\n")[1], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)} - {"handler", "docs"}
    assert {"prompt", "seed", "response"} <= named
    assert named >= set(client.describe()["defaults"])
