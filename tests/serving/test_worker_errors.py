"""What explains the death of a worker: exit code, signal, and lines that no client can have written."""

from __future__ import annotations

from pathlib import Path

from pipeline.serving.worker_errors import death_cause, log_tail, server_complaints
from pipeline.serving.worker_reports import WorkerEnd
from pipeline.serving.worker_state import WorkerState, parse_worker_state

END = (
    "Backend worker process died.",
    "Traceback (most recent call last):",
    "RuntimeError: 500 - Unknown exception",
)


def test_the_error_is_the_models_not_torchserves() -> None:
    lines = ("Traceback (most recent call last):", "RuntimeError: conv_in.weight is missing", *END)
    assert death_cause(WorkerEnd(7, 1, lines=lines)) == "RuntimeError: conv_in.weight is missing"


def test_an_import_error_is_found_behind_its_mask() -> None:
    lines = (
        *END[:2],
        "ModuleNotFoundError: No module named 'diffusers'",
        "During handling of the above exception, another exception occurred:",
        "ModuleNotFoundError: No module named 'ts.torch_handler.marquee_handler'",
    )
    assert death_cause(WorkerEnd(7, 1, lines=lines)) == "ModuleNotFoundError: No module named 'diffusers'"


def test_without_an_error_the_exit_code_is_the_cause() -> None:
    assert death_cause(WorkerEnd(7, 3, lines=("Torch worker started.",))) == "exit code 3"


def test_a_signal_is_the_cause_whatever_was_printed_before() -> None:
    end = WorkerEnd(7, -9, served=True, lines=("ValueError: long ago",))
    assert death_cause(end) == "signal 9, SIGKILL, as the kernel sends it where memory is short"
    assert death_cause(WorkerEnd(7, -11)) == "signal 11, SIGSEGV"


def test_a_worker_that_torchserve_ended_is_told_from_a_killed_one() -> None:
    assert "responseTimeout" in death_cause(WorkerEnd(7, -9, stopped=True))
    assert "together with" in death_cause(WorkerEnd(7, None))
    failed = WorkerEnd(7, -9, stopped=True, lines=("ValueError: no weights", *END))
    assert death_cause(failed) == "ValueError: no weights"


def test_the_logs_are_shown_by_name_and_may_be_missing(tmp_path: Path) -> None:
    assert log_tail(tmp_path, 5) == ""
    (tmp_path / "ts_log.log").write_text(
        "2026-11-21T12:00:00 [WARN ] main org.pytorch.serve.ModelServer - Failed to load model: model.mar\n"
        "java.io.IOException: no\n\tat java.base/x\n"
    )
    assert log_tail(tmp_path, 1) == "--- ts_log.log\n\tat java.base/x"
    assert server_complaints(tmp_path)[-1] == "java.io.IOException: no"


def test_workers_are_ready_when_all_have_a_process() -> None:
    queue = {"remainingCapacity": 60, "pendingRequests": 4}
    ready, loading = {"status": "READY", "pid": 12}, {"status": "UNLOADING", "pid": -1}
    state = parse_worker_state([{"workers": [ready, loading], "jobQueueStatus": queue}])
    assert state == WorkerState(("READY", "UNLOADING"), (12,), 4)
    assert not state.ready
    assert parse_worker_state([{"workers": [ready]}]).ready
    assert not parse_worker_state([{"workers": [{"status": "READY", "pid": -1}]}]).ready
    assert not WorkerState().ready
