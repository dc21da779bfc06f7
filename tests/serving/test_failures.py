"""Servers that cannot start, workers that die, parents that vanish."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
import yaml
from attacks import FORGED, forging, send_marked_prompts
from calls import DEADLINE_SECONDS, post_together

from pipeline.archive.layout import SUMS, bytes_member
from pipeline.archive.writer import write_archive
from pipeline.client import Client
from pipeline.errors import MarqueeError
from pipeline.progress import Silent
from pipeline.serving import launch_files
from pipeline.serving.readiness import wait_until_ready
from pipeline.serving.server import RunningServer
from pipeline.serving.settings import ServeOptions
from pipeline.serving.torchserve import launch, start
from pipeline.serving.watching import watch

SLOW = {"instances": [{"prompt": "x", "width": 128, "height": 128, "num_inference_steps": 40, "seed": 1}]}


def eventually(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def copy_with(mar: Path, target: Path, changes: dict[str, bytes | None]) -> Path:
    """The archive with members replaced (or left out, for None), and sums that fit."""
    with zipfile.ZipFile(mar) as archive:
        content = {name: archive.read(name) for name in archive.namelist() if name != SUMS} | changes
    members = [bytes_member(name, data) for name, data in content.items() if data is not None]
    write_archive(target, members, Silent())
    return target


@pytest.mark.torchserve
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model/unet/diffusion_pytorch_model.safetensors": None}, "unet"),
        ({"marquee_handler.py": b"import a_package_that_is_not_there\n"}, "a_package_that_is_not_there"),
        ({"marquee_handler.py": b"import os\nos._exit(3)\n"}, "the worker died while it loaded the model"),
    ],
    ids=["weights missing", "import fails", "dies without a word"],
)
def test_a_failed_load_shows_the_workers_own_error(
    model_mar: Path, tmp_path: Path, changes: dict[str, bytes | None], words: str
) -> None:
    broken = copy_with(model_mar, tmp_path / "broken.mar", changes)
    with pytest.raises(MarqueeError, match=words) as caught:
        start(broken, ServeOptions(threads=1))
    assert "\n  | " in str(caught.value)  # its last lines, below the sentence


@pytest.mark.torchserve
def test_an_archive_that_torchserve_refuses_ends_the_wait(
    model_mar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = copy_with(model_mar, tmp_path / "broken.mar", {})
    with zipfile.ZipFile(broken, "a") as archive:
        archive.writestr("../outside", "")  # Java unpacks nothing of such an archive
    # The verification would refuse it first.
    monkeypatch.setattr(launch_files, "verified_copy", lambda mar, copy, **_: shutil.copyfile(mar, copy))
    with pytest.raises(MarqueeError, match=r"^TorchServe refused the archive\n") as caught:
        start(broken, ServeOptions(threads=1))
    assert "\n  | java.io.IOException: Detected Zip Slip vulnerability: ../outside" in str(caught.value)
    assert "\tat " not in str(caught.value)


def kill_when_busy(pid: int) -> None:
    """kill -9 once the process has worked for a while, so that it is in the middle of a picture."""
    process = psutil.Process(pid)
    idle = process.cpu_times().user
    assert eventually(lambda: process.cpu_times().user > idle + 0.3)
    process.kill()


@contextmanager
def watching(server: RunningServer) -> Iterator[list[str]]:
    """What ``watch`` tells while the block runs."""
    stopping, told = threading.Event(), list[str]()
    watcher = threading.Thread(target=lambda: told.extend(watch(server, stopping)))
    watcher.start()
    try:
        yield told
    finally:
        stopping.set()
        watcher.join()


@contextmanager
def no_file_grows(server: RunningServer) -> Iterator[None]:
    """Whatever Java writes fails, as on a full disk."""
    (java,) = psutil.Process(server.pid).children()
    before = java.rlimit(psutil.RLIMIT_FSIZE)
    java.rlimit(psutil.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        java.rlimit(psutil.RLIMIT_FSIZE, before)


def test_a_killed_worker_ends_its_requests_and_comes_back(server: RunningServer) -> None:
    (worker,) = server.worker_state().pids
    send_marked_prompts(server.ports.inference, f"{FORGED} by a client")
    with watching(server) as told:
        with ThreadPoolExecutor(1) as caller, no_file_grows(server):
            busy = caller.submit(post_together, server.predict_url, [SLOW] * 6)
            kill_when_busy(worker)
            assert eventually(lambda: bool(told))  # of which no log tells
        answers = busy.result()
        assert not any(isinstance(answer, httpx.ReadTimeout) for answer in answers)
        failed = [one for one in answers if isinstance(one, Exception) or one.status_code >= 500]
        assert failed
        with Client(server.url) as client:
            assert client.predict(["a red circle"])[0].width == 64
        assert server.worker_state().pids != (worker,)
        assert eventually(lambda: told[-1] == "the worker is back")
    assert told[0].startswith("the worker died (signal 9, SIGKILL, ")


@pytest.mark.torchserve
def test_an_archive_for_one_step_starts_among_forged_deaths(model_mar: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(model_mar) as archive:
        settings = yaml.safe_load(archive.read("model-config.yaml"))
    settings["marquee"]["defaults"] |= {"num_inference_steps": 1}
    settings["marquee"]["limits"] |= {"max_num_inference_steps": 1}
    changes: dict[str, bytes | None] = {"model-config.yaml": yaml.safe_dump(settings).encode()}
    limited = copy_with(model_mar, tmp_path / "limited.mar", changes)
    server = launch(limited, ServeOptions(threads=1))
    try:
        with forging(server.ports.inference):
            wait_until_ready(server)
        assert server.worker_ends() == ()
    finally:
        server.stop()


@pytest.mark.torchserve
def test_the_end_of_torchserve_ends_the_wait(model_mar: Path) -> None:
    server = launch(model_mar, ServeOptions(threads=1))
    try:
        assert eventually(lambda: len(psutil.Process(server.pid).children()) > 0)
        psutil.Process(server.pid).children()[0].kill()
        with pytest.raises(MarqueeError, match="TorchServe ended with code"):
            wait_until_ready(server)
    finally:
        server.stop()


@pytest.mark.torchserve
def test_a_start_that_takes_too_long_is_given_up(model_mar: Path) -> None:
    with pytest.raises(MarqueeError, match="was not loaded within 0 s"):
        start(model_mar, ServeOptions(threads=1, start_seconds=0.01))


@pytest.mark.torchserve
def test_no_process_outlives_a_killed_parent(model_mar: Path, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, time; from pipeline.serving.torchserve import launch;"
        "from pipeline.serving.settings import ServeOptions;"
        "options = ServeOptions(work_folder=pathlib.Path(sys.argv[2]), threads=1);"
        "print(launch(pathlib.Path(sys.argv[1]), options).pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(model_mar), str(tmp_path / "w")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        launcher = psutil.Process(int(parent.stdout.readline()))
        assert eventually(lambda: len(launcher.children(recursive=True)) >= 2)  # Java and the worker
        family = [launcher, *launcher.children(recursive=True)]
        parent.kill()
    gone, _ = psutil.wait_procs(family, timeout=DEADLINE_SECONDS)
    zombies = [one for one in family if one.is_running() and one.status() == psutil.STATUS_ZOMBIE]
    assert len(gone) + len(zombies) == len(family)
