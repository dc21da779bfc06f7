"""The sockets of a server have a folder with a short path, wherever TMPDIR and the work folder lie."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil
import pytest

from pipeline.errors import MarqueeError
from pipeline.serving import socket_folder
from pipeline.serving.socket_folder import LONGEST_NAME, TEMPORARY, make_socket_folder, socket_places
from pipeline.serving.work_folder import sweep_work_folders

LIMIT_SECONDS = 300.0


@pytest.fixture
def deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TMPDIR of more than 200 characters."""
    folder = tmp_path.joinpath(*(["x" * 50] * 4))
    folder.mkdir(parents=True)
    assert len(str(folder)) > 200
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def test_a_short_tmpdir_holds_the_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="m", dir="/tmp") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        made = make_socket_folder(Path(short))
        assert made.path.parent == Path(short)
        made.remove()
        assert os.listdir(short) == []


def test_a_deep_tmpdir_holds_none(deep: Path) -> None:
    work = deep / TEMPORARY
    work.mkdir()
    made = make_socket_folder(work)
    try:
        assert made.path.parent == Path("/tmp")
        assert made.path.stat().st_mode & 0o777 == 0o700
        bind(made.path / LONGEST_NAME)  # TorchServe's own, which lie in its temporary folder
        assert (work / ".ts.sock.65535").is_socket()
    finally:
        made.remove()
    assert not made.path.exists()
    assert work.is_dir()


def test_the_next_place_is_taken_where_one_cannot_be_written(
    deep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_folder, "SHORT_PLACES", ("/nowhere", "/proc", "/dev/shm"))
    made = make_socket_folder(deep)
    assert made.path.parent == Path("/dev/shm")
    os.close(made.lock)  # its owner is gone
    assert made.path in sweep_work_folders(socket_places())
    assert not made.path.exists()
    monkeypatch.setattr(socket_folder, "SHORT_PLACES", ("/nowhere", "/proc"))
    with pytest.raises(MarqueeError, match=r"no place for the server's Unix sockets\n.*/nowhere") as caught:
        make_socket_folder(deep)
    assert "TMPDIR" in str(caught.value.cure)


def serve(mar: Path, deep: Path, output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pipeline", "serve", "--mar", str(mar), "--port", "0"]
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "TMPDIR": str(deep)}
    with output.open("wb") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)


def wait_for_url(process: subprocess.Popen[bytes], output: Path) -> str:
    deadline = time.monotonic() + LIMIT_SECONDS
    while "ready at " not in output.read_text():
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.2)
    return output.read_text().split("ready at ")[1].split()[0] + "/predictions/model"


def held(process: subprocess.Popen[bytes]) -> set[Path]:
    """The socket folders in /tmp whose lock this process holds."""
    files = {Path(file.path) for file in psutil.Process(process.pid).open_files()}
    return {file.parent for file in files if file.parent.parent == Path("/tmp")}


@pytest.mark.torchserve
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_starts_answers_and_leaves_nothing_behind(
    model_mar: Path, deep: Path, tmp_path: Path, number: signal.Signals
) -> None:
    output = tmp_path / "output.txt"
    process = serve(model_mar, deep, output)
    try:
        url = wait_for_url(process, output)
        (sockets,) = held(process)
        instance = {"prompt": "a red circle", "num_inference_steps": 2}
        answer = httpx.post(url, json={"instances": [instance]}, timeout=LIMIT_SECONDS, trust_env=False)
        assert answer.status_code == 200
        assert (sockets / "management.sock").is_socket()
    finally:
        process.send_signal(number)
        process.wait(LIMIT_SECONDS)
    if number == signal.SIGKILL:
        assert sockets.exists()
        assert sockets in sweep_work_folders(socket_places())
    assert not sockets.exists()
    assert list(deep.iterdir()) == []
