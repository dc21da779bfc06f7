"""Finding the worker's own error in TorchServe's logs; the lines are what TorchServe 0.12 wrote."""

from __future__ import annotations

from pathlib import Path

from pipeline.serving.worker_errors import count_worker_deaths, log_tail, worker_error, worker_lines
from pipeline.serving.worker_state import WorkerState, parse_worker_state

BIRTH = "s_name_part0=/tmp/x/.ts.sock, s_name_part1=9000, pid=9539"
END = [
    "Backend worker process died.",
    "Traceback (most recent call last):",
    "RuntimeError: 500 - Unknown exception",
]


def write_model_log(logs: Path, *lines: str) -> Path:
    prefix = "2026-11-21T11:59:16,926 [INFO ] W-9000-model_1.0-stdout - "
    (logs / "model_log.log").write_text("".join(f"{prefix}{line}\n" for line in lines))
    return logs


def test_the_error_is_the_models_not_torchserves(tmp_path: Path) -> None:
    logs = write_model_log(
        tmp_path, BIRTH, "Traceback (most recent call last):", "RuntimeError: conv_in.weight is missing", *END
    )
    assert worker_error(logs) == "RuntimeError: conv_in.weight is missing"
    assert worker_lines(logs, last=1) == END[-1:]
    assert worker_lines(logs)[0] == BIRTH


def test_an_import_error_is_found_behind_its_mask(tmp_path: Path) -> None:
    logs = write_model_log(
        tmp_path,
        BIRTH,
        *END[:2],
        "ModuleNotFoundError: No module named 'diffusers'",
        "During handling of the above exception, another exception occurred:",
        "ModuleNotFoundError: No module named 'ts.torch_handler.marquee_handler'",
    )
    assert worker_error(logs) == "ModuleNotFoundError: No module named 'diffusers'"


RETRY = "2026-11-21T12:00:00 [INFO ] W-9000 org.pytorch.serve.wlm.WorkerThread - Retry worker: 9000 in 1 s\n"


def test_the_error_is_that_of_the_last_death(tmp_path: Path) -> None:
    logs = write_model_log(tmp_path, BIRTH, "ValueError: old", *END, BIRTH, "Torch worker started.")
    (logs / "ts_log.log").write_text(RETRY)
    assert worker_error(logs) == "ValueError: old"  # the second worker has only just begun
    (logs / "ts_log.log").write_text(RETRY * 2)
    assert worker_error(logs) is None  # it died too, without a word


def test_logs_that_are_not_there_yet(tmp_path: Path) -> None:
    assert worker_error(tmp_path) is None
    assert count_worker_deaths(tmp_path) == 0
    assert log_tail(tmp_path, 5) == ""


def test_every_restart_is_a_death(tmp_path: Path) -> None:
    (tmp_path / "ts_log.log").write_text(RETRY * 2 + "something else\n")
    assert count_worker_deaths(tmp_path) == 2
    assert log_tail(tmp_path, 1) == "--- ts_log.log\nsomething else"


def test_workers_are_ready_when_all_have_a_process() -> None:
    queue = {"remainingCapacity": 60, "pendingRequests": 4}
    ready, loading = {"status": "READY", "pid": 12}, {"status": "UNLOADING", "pid": -1}
    state = parse_worker_state([{"workers": [ready, loading], "jobQueueStatus": queue}])
    assert state == WorkerState(("READY", "UNLOADING"), (12,), 4)
    assert not state.ready
    assert parse_worker_state([{"workers": [ready]}]).ready
    assert not parse_worker_state([{"workers": [{"status": "READY", "pid": -1}]}]).ready
    assert not WorkerState().ready
