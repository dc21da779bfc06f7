"""The thread that steps: errors in a step, the end of the process, stuck steps and lost GPUs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from frontend import Answer, Frontend, Gate, codes, long_job, until
from tiny import make_job

from handler.doors.torchserve.request_book import RequestBook
from handler.engine.sampler import SchedulerSampler
from handler.engine.watchdog import EXIT_CODE

SHORT = make_job(num_inference_steps=1, scheduler="DDIM")


def fail_once(book: RequestBook[Answer], method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next call of ``method``, such as "batch.encode", is an error as no part of the engine may have."""
    part, _, name = method.partition(".")
    fail_once_in(getattr(book.engine, part), name, monkeypatch)


def fail_once_in(owner: object, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right: Callable[..., object] = getattr(owner, name)

    def fail(*_: object, **__: object) -> None:
        monkeypatch.setattr(owner, name, right)
        raise MemoryError("injected")

    monkeypatch.setattr(owner, name, fail)


def answered(frontend: Frontend, name: str) -> list[str]:
    """What is said to a request in the end."""

    def call() -> bool:
        frontend.call()
        return name not in frontend.names

    until(call)
    reply = frontend.chunks[name][-1].reply
    assert reply is not None
    return codes(reply)


@pytest.mark.parametrize("method", ["batch.step", "batch.encode", "decodes.take"])
def test_an_error_in_a_step_costs_only_those_who_were_in_it(
    method: str, book: RequestBook[Answer], gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    frontend = Frontend(book)
    gate.shut()
    frontend.call(drawn=[SHORT])
    gate.wait()
    frontend.call(**{name: [long_job(seed)] for seed, name in enumerate("abcd")}, waits=[SHORT])
    gate.let(1)  # "drawn" is finished and nobody has asked for it yet; a to d have places
    fail_once(book, method, monkeypatch)
    if method == "batch.encode":
        frontend.hang_up("d")
        frontend.call()  # "waits" has its turn, and in it comes the error
    gate.open()
    assert answered(frontend, "drawn") == ["picture"]
    assert {name: answered(frontend, name) for name in "abc"} == {name: ["internal"] for name in "abc"}
    assert answered(frontend, "waits") == (["internal"] if method == "batch.encode" else ["picture"])
    assert frontend.draws_a_picture()
    assert book.engine.live_count == 0


def test_an_error_before_anybody_is_taken_in_does_not_come_for_ever(
    book: RequestBook[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    frontend = Frontend(book)
    fail_once(book, "admission.next_in_line", monkeypatch)
    frontend.call(waits=[SHORT])
    assert answered(frontend, "waits") == ["internal"]
    assert frontend.draws_a_picture()


def test_an_error_when_all_its_clients_are_gone_is_not_the_next_ones(
    book: RequestBook[Answer], gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    frontend = Frontend(book)
    gate.shut()
    frontend.call(gone=[long_job()])
    gate.wait()
    fail_once_in(SchedulerSampler, "advance", monkeypatch)
    frontend.hang_up("gone")
    gate.open()
    until(lambda: book.engine.metrics.counts["failed"] == 1)
    assert frontend.draws_a_picture()


def test_an_error_in_the_step_of_a_batch_given_up_is_not_the_next_batchs(
    book: RequestBook[Answer], gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.shut()
    book.admit("late", [long_job()], list)
    assert codes(book.finish_all(seconds=0.3)["late"]) == ["took_too_long"]
    gate.wait()
    fail_once_in(SchedulerSampler, "advance", monkeypatch)
    book.admit("next", [SHORT], list)
    gate.open()
    assert codes(book.finish_all()["next"]) == ["picture"]


def test_a_job_that_cannot_join_fails_alone(
    book: RequestBook[Answer], gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    frontend = Frontend(book)
    gate.shut()
    frontend.call(live=[make_job(num_inference_steps=3, scheduler="DDIM")])
    gate.wait()

    def fail(*_: object) -> None:
        monkeypatch.undo()
        raise RuntimeError("not enough memory (injected)")

    monkeypatch.setattr(SchedulerSampler, "join", fail)
    frontend.call(bad=[SHORT])
    gate.open()
    assert answered(frontend, "bad") == ["internal"]
    assert answered(frontend, "live") == ["picture"]


def test_a_process_ends_in_order_while_it_draws() -> None:
    program = """
import sys, tempfile, time
from pathlib import Path
from frontend import Frontend, long_job
from tiny import as_model, make_pipeline
from handler.doors.torchserve.request_book import RequestBook
from handler.engine.engine import Engine
from handler.engine.memory.footprint import Footprint
from handler.engine.memory.plan import MemoryPlan
from handler.engine.options import EngineOptions
from handler.engine.runner import Runner
from handler.engine.watchdog import Watchdog
model = as_model(make_pipeline(Path(tempfile.mkdtemp())))
engine = Engine(model, EngineOptions(), MemoryPlan(10**9, Footprint(10, 10, 10)))
book = RequestBook(Runner(engine, Watchdog(600)))
frontend = Frontend(book)
frontend.call(**{f"r{seed}": [long_job(seed)] for seed in range(4)})
while book.engine.metrics.counts["steps"] < 5:
    frontend.call()
print("drawing", flush=True)
sys.exit(0)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "drawing\n"), ended.stderr


def test_the_watchdog_ends_a_process_that_is_stuck() -> None:
    code = """
import time
from handler.engine.watchdog import Watchdog
watchdog = Watchdog(seconds=0.5)
for _ in range(4):
    with watchdog.watch():
        time.sleep(0.2)
print("lived", flush=True)
with watchdog.watch():
    time.sleep(120)
print("never")
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False
    )
    assert ended.returncode == EXIT_CODE
    assert ended.stdout == "lived\n"
    assert "time.sleep" in ended.stderr or "File" in ended.stderr, "where it hung"


@pytest.mark.parametrize(
    ("device", "lost", "code"), [("cuda", True, EXIT_CODE), ("cuda", False, 0), ("cpu", True, 0)]
)
def test_a_gpu_that_answers_only_errors_ends_the_worker(device: str, lost: bool, code: int) -> None:
    program = """
import sys, torch
from handler.engine.memory.elastic import BROKEN, Elastic
def synchronize(device):
    assert device == torch.device("cuda", 1)
    if sys.argv[2] == "True":
        raise RuntimeError("CUDA error: an illegal memory access was encountered (injected)")
def call(items):
    raise RuntimeError("CUDA error (injected)")
torch.cuda.synchronize = synchronize
device = torch.device("cuda", 1) if sys.argv[1] == "cuda" else torch.device("cpu")
assert Elastic(device).run("unet", [1, 2], call) == [BROKEN, BROKEN]
"""
    command = [sys.executable, "-c", program, device, str(lost)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == code, ended.stderr
