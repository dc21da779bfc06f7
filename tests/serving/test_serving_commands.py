"""``marquee serve`` and ``marquee predict`` as processes, the way a person runs them."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from calls import DEADLINE_SECONDS, post
from PIL import Image

from pipeline.serving.server import RunningServer

ROOT = Path(__file__).parents[2]
SLOW = {"instances": [{"prompt": "x", "width": 192, "height": 192, "num_inference_steps": 24, "seed": 1}]}


def marquee(*arguments: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
    )


@contextmanager
def served(mar: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A ``marquee serve`` process that is ready, and its URL."""
    command = [sys.executable, "-m", "pipeline", "serve", "--mar", str(mar), "--port", "0", "--threads", "1"]
    command += ["--drain-seconds", str(DEADLINE_SECONDS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        watchdog = threading.Timer(DEADLINE_SECONDS, process.kill)
        watchdog.start()
        try:
            url = next(found[1] for line in process.stdout if (found := re.match(r"ready at (\S+)", line)))
            watchdog.cancel()
            yield process, url
        finally:
            watchdog.cancel()
            process.kill()


@pytest.mark.torchserve
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_refuses_what_is_new_and_finishes_what_runs(model_mar: Path, number: signal.Signals) -> None:
    with served(model_mar) as (process, url), ThreadPoolExecutor(3) as callers:
        family = psutil.Process(process.pid).children(recursive=True)
        predict_url = f"{url}/predictions/model"
        running = [callers.submit(post, predict_url, SLOW) for _ in range(2)]
        time.sleep(1.0)
        process.send_signal(number)
        time.sleep(1.0)
        late = callers.submit(post, predict_url, {"instances": [{"prompt": "late"}]})
        assert [one.result().status_code for one in running] == [200, 200]
        assert late.result().status_code == 503
        assert late.result().json()["error"]["code"] == "draining"
        assert process.wait(DEADLINE_SECONDS) == 0
        assert process.stdout is not None
        assert process.stdout.read().endswith("stopped\n")
    assert not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def test_serve_refuses_a_missing_archive_and_a_taken_port_in_one_line(
    model_mar: Path, tmp_path: Path
) -> None:
    missing = marquee("serve", "--mar", tmp_path / "no.mar")
    assert missing.returncode == 1
    assert missing.stderr.startswith(f"error: there is no archive at {tmp_path / 'no.mar'}\n  cure: ")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = marquee("serve", "--mar", model_mar, "--port", str(port))
    assert refused.returncode == 1
    assert re.match(
        rf"error: port {port} on 127.0.0.1 is taken by process \d+ .*\n  cure: .*\n$", refused.stderr
    )


def test_make_serve_never_serves_an_older_archive() -> None:
    make = ["make", "--dry-run", "--old-file=model_artifacts/model.mar", "serve"]
    steps = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert 0 < steps.index("marquee build") < steps.index("marquee serve")


def test_predict_writes_one_picture_per_prompt(server: RunningServer, tmp_path: Path) -> None:
    options = ["--url", server.url, "--seed", "5", "--steps", "2", "--width", "64", "--height", "72"]
    done = marquee("predict", "a red circle", "a blue star", "-o", "drawn.png", *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drawn-1.png", "drawn-2.png"]
    with Image.open(tmp_path / "drawn-2.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (64, 72))
    assert re.search(r"drawn-1.png  64x72 png, [\d,]+ bytes, seed 5", done.stdout)


def test_a_format_alone_names_the_file(server: RunningServer, tmp_path: Path) -> None:
    done = marquee(
        "predict", "a star", "--format", "png", "--steps", "2", "--url", server.url, folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.format == "PNG"


def test_a_picture_that_cannot_be_written_is_one_line(server: RunningServer, tmp_path: Path) -> None:
    options = ["--steps", "2", "--url", server.url, "-o", "/dev/full"]
    done = marquee("predict", "a star", *options, folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: -o /dev/full cannot be written: No space left on device\n")


def test_predict_shows_every_problem(server: RunningServer, tmp_path: Path) -> None:
    done = marquee("predict", "x", "--steps", "0", "--width", "7", "--url", server.url, folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: 2 problems with the request\n  - ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "p.gif"], "-o p.gif: pictures are written as .jpg, .jpeg, .png, .webp"),
        (["-o", "p.png", "--format", "jpeg"], "--format jpeg does not fit -o p.png"),
        (["-o", "nowhere/p.png"], "-o nowhere/p.png: there is no folder nowhere"),
        (["-o", "."], "-o . is a folder"),
        (["-o", "/proc/p.png"], "-o /proc/p.png cannot be written: "),
        (["--format", "gif"], "--format gif: pictures are jpeg, png or webp"),
        (["--url", "localhost:1"], "'localhost:1' is no server's address"),
        (["--url", "http://127.0.0.1:1"], "no server listens at http://127.0.0.1:1"),
    ],
)
def test_predict_refuses_in_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = marquee("predict", "x", *arguments, folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {words}")
    assert len(done.stderr.splitlines()) <= 2  # what is wrong, and its cure
