"""How the end of a worker reaches marquee: real processes of the program that TorchServe starts as Python."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.serving import worker_process
from pipeline.serving.worker_reports import WorkerEnd, WorkerReports

DEADLINE_SECONDS = 60.0
REQUEST = "print('Backend received inference at: 1', flush=True)\n"
CLIENTS_ERROR = "print('json.decoder.JSONDecodeError: forged by a client', flush=True)\n"


def eventually(true: Callable[[], object]) -> bool:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def reports(tmp_path: Path) -> Iterator[WorkerReports]:
    listening = WorkerReports(tmp_path / "workers.sock")
    yield listening
    listening.close()


def start(tmp_path: Path, code: str, before: Callable[[], None] | None = None) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-I", "-S", worker_process.__file__, str(tmp_path / "workers.sock")]
    command = [*program, sys.executable, "-c", code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=before)


def the_end(reports: WorkerReports) -> WorkerEnd:
    assert eventually(lambda: reports.ends)
    (end,) = reports.ends
    return end


def test_the_exit_code_and_the_last_lines_arrive_and_are_passed_on(
    reports: WorkerReports, tmp_path: Path
) -> None:
    code = "import sys; print('loading'); print('no weights', file=sys.stderr); sys.exit(3)"
    front = start(tmp_path, code)
    assert front.communicate() == (b"loading\n", b"no weights\n")
    assert front.returncode == 3
    end = the_end(reports)
    assert (end.code, end.served, end.stopped) == (3, False, False)
    assert sorted(end.lines) == ["loading", "no weights"]


def test_a_signal_arrives_as_one(reports: WorkerReports, tmp_path: Path) -> None:
    front = start(tmp_path, "import os; os.kill(os.getpid(), 11)")
    front.communicate()
    assert front.returncode == 128 + 11  # as Java gives the end of a process by a signal
    assert the_end(reports).code == -11


def test_what_a_client_can_have_written_explains_nothing(reports: WorkerReports, tmp_path: Path) -> None:
    code = "import os\n" + REQUEST + CLIENTS_ERROR + "os.write(2, b'free(): invalid pointer\\n'); os._exit(1)"
    start(tmp_path, code).communicate()
    end = the_end(reports)
    assert end.served
    assert end.lines == ("free(): invalid pointer",)


def test_a_killed_worker_is_reported_although_torchserve_kills_its_parent_at_once(
    reports: WorkerReports, tmp_path: Path
) -> None:
    front = start(tmp_path, "import os, time; print(os.getpid(), flush=True); time.sleep(600)")
    assert front.stdout is not None
    worker = int(front.stdout.readline())
    os.kill(worker, signal.SIGKILL)
    front.kill()
    front.communicate()
    end = the_end(reports)
    assert (end.pid, end.code, end.stopped) == (worker, -9, False)


def test_a_worker_ends_with_the_process_that_torchserve_knows(reports: WorkerReports, tmp_path: Path) -> None:
    front = start(tmp_path, "import os, time; print(os.getpid(), flush=True); time.sleep(600)")
    assert front.stdout is not None
    worker = psutil.Process(int(front.stdout.readline()))
    front.kill()
    front.communicate()
    assert the_end(reports).stopped
    assert not worker.is_running()


def test_the_output_of_a_killed_front_ends_at_once(reports: WorkerReports, tmp_path: Path) -> None:
    """TorchServe takes its end, when it comes later, for the end of the worker that it has started since."""
    front = start(tmp_path, "import os, time; print(os.getpid(), flush=True); time.sleep(600)")
    assert front.stdout is not None
    worker = psutil.Process(int(front.stdout.readline()))
    front.kill()
    assert front.communicate() == (b"", b"")
    assert worker.is_running()
    assert not reports.ends


def test_a_worker_whose_monitor_is_killed_ends_and_is_reported(
    reports: WorkerReports, tmp_path: Path
) -> None:
    front = start(tmp_path, "import os, time; print(os.getppid(), os.getpid(), flush=True); time.sleep(600)")
    assert front.stdout is not None
    monitor, worker = (psutil.Process(int(word)) for word in front.stdout.readline().split())
    monitor.kill()
    front.communicate()
    assert front.returncode == 1
    assert the_end(reports) == WorkerEnd(worker.pid, None, served=True)
    assert eventually(lambda: not worker.is_running())


def test_a_full_disk_hides_no_death(reports: WorkerReports, tmp_path: Path) -> None:
    def no_file_may_grow() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    start(tmp_path, "raise SystemExit(5)", before=no_file_may_grow).communicate()
    assert the_end(reports).code == 5


def test_a_worker_without_a_listener_runs_all_the_same(tmp_path: Path) -> None:
    front = start(tmp_path, "print('drawn')")
    assert front.communicate()[0] == b"drawn\n"
    assert front.returncode == 0
