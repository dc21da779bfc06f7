"""Requests of several jobs through the engine, as plain batches and as iterations of continuous batching."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from driving import nearly_equal, pixels
from tiny import make_job

from handler.engine.carrier import Carrier
from handler.engine.continuous import Arrival, Iterations, Part
from handler.engine.engine import Engine
from handler.engine.memory import MemoryPlan
from handler.engine.options import EngineOptions
from handler.engine.watchdog import EXIT_CODE, Watchdog
from handler.job import Failure, Job, Outcome
from handler.model import Model

Oracle = list[tuple[Job, torch.Tensor]]
Answer = list[Outcome]


@pytest.fixture
def carrier(model: Model, plan: MemoryPlan) -> Iterator[Carrier[Answer]]:
    watchdog = Watchdog(seconds=600)
    made: Carrier[Answer] = Carrier(Engine(model, EngineOptions(max_live=4, max_queue=6), plan), watchdog)
    yield made
    made.close()
    watchdog.close()


class Gate:
    """Stands before every UNet call: notes its rows, and from ``shut`` on lets none pass until ``let``."""

    def __init__(self, carrier: Carrier[Answer]) -> None:
        self.rows: list[int] = []
        self._is_shut = False
        self._passes, self._waiting = threading.Semaphore(0), threading.Semaphore(0)
        self._hook = carrier.engine._model.unet.register_forward_pre_hook(self._pass)

    def shut(self) -> None:
        self._is_shut = True

    def wait(self) -> None:
        """Returns when a call stands before it."""
        assert self._waiting.acquire(timeout=60)

    def let(self, calls: int) -> None:
        """Returns when so many have passed and the next one stands before it."""
        for _ in range(calls):
            self._passes.release()
            self.wait()

    def open(self) -> None:
        self._is_shut = False
        self._passes.release(1000)
        self._hook.remove()

    def _pass(self, _: object, inputs: tuple[torch.Tensor, ...]) -> None:
        self.rows.append(len(inputs[0]))
        if self._is_shut:
            self._waiting.release()
            assert self._passes.acquire(timeout=60)


@pytest.fixture
def gate(carrier: Carrier[Answer]) -> Iterator[Gate]:
    made = Gate(carrier)
    yield made
    made.open()


def long_job(seed: int = 7) -> Job:
    return make_job(num_inference_steps=900, scheduler="DDIM", seed=seed)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def codes(answer: Answer) -> list[str]:
    return [outcome.code if isinstance(outcome, Failure) else "picture" for outcome in answer]


def test_a_plain_batch_of_mixed_requests_is_answered_whole(carrier: Carrier[Answer], oracle: Oracle) -> None:
    chosen = {"one": oracle[:1], "three": oracle[1:4], "none": [], "two": oracle[4:6]}
    for name, pairs in chosen.items():
        carrier.admit(name, [job for job, _ in pairs], list)
    answers = carrier.finish_all()
    assert sorted(answers) == sorted(chosen)
    for name, pairs in chosen.items():
        assert [
            nearly_equal(pixels(got), wanted) for got, (_, wanted) in zip(answers[name], pairs, strict=True)
        ] == [True] * len(pairs)
    assert carrier.open_requests == []


def test_a_request_that_does_not_fit_the_queue_whole_takes_no_place(carrier: Carrier[Answer]) -> None:
    carrier.admit("big", [make_job(seed=seed) for seed in range(8)], list)
    carrier.admit("bigger", [make_job(seed=seed) for seed in range(3)], list)
    carrier.admit("small", [make_job(seed=seed) for seed in range(2)], list)
    answers = carrier.finish_all()
    assert codes(answers["big"]) == ["picture"] * 8
    assert codes(answers["bigger"]) == ["overloaded"] * 3
    assert codes(answers["small"]) == ["picture"] * 2
    refused = answers["bigger"][0]
    assert isinstance(refused, Failure)
    assert refused.retry_after_seconds is not None


def test_a_batch_without_time_left_fails_only_what_is_not_drawn(carrier: Carrier[Answer]) -> None:
    carrier.admit("long", [long_job()], list)
    carrier.admit("short", [make_job(num_inference_steps=1, scheduler="DDIM")], list)
    hook = carrier.engine._model.unet.register_forward_hook(lambda *_: time.sleep(0.1))
    answers = carrier.finish_all(seconds=2)
    hook.remove()
    assert {name: codes(answer) for name, answer in answers.items()} == {
        "long": ["took_too_long"],
        "short": ["picture"],
    }
    until(lambda: not carrier.engine.busy)


class Frontend:
    """Calls like TorchServe's: every request again until its last part, under a name of its own."""

    def __init__(self, carrier: Carrier[Answer]) -> None:
        self.iterations = Iterations(carrier)
        self.names: list[str] = []
        self.parts: dict[str, list[Part[Answer]]] = {}

    def call(self, **arriving: Sequence[Job] | str) -> None:
        self.names += arriving

        def read(index: int) -> Arrival[Answer] | Answer:
            given = arriving[self.names[index]]  # asking again about an old request is a KeyError
            return [Failure(400, given, "")] if isinstance(given, str) else Arrival(given, list)

        parts = self.iterations.iterate(self.names, read)
        for name, part in zip(self.names, parts, strict=True):
            self.parts.setdefault(name, []).append(part)
        self.names = [name for name, part in zip(self.names, parts, strict=True) if part.stop is False]

    def hang_up(self, name: str) -> None:
        self.names.remove(name)

    def draws_a_picture(self) -> bool:
        """Whether a new request, asked to its end, has one."""
        self.call(next=[make_job(num_inference_steps=1, scheduler="DDIM")])
        while self.names:
            self.call()
        reply = self.parts["next"][-1].reply
        return reply is not None and codes(reply) == ["picture"]


def test_requests_join_and_leave_between_calls(carrier: Carrier[Answer], oracle: Oracle) -> None:
    frontend, wanted = (
        Frontend(carrier),
        {f"r{number}": oracle[number : number + 2] for number in range(0, 8, 2)},
    )
    for name, pairs in wanted.items():
        frontend.call(**{name: [job for job, _ in pairs]})
    while frontend.names:
        frontend.call()
    for name, pairs in wanted.items():
        *kept, last = frontend.parts[name]
        assert all(part == Part(None, False) for part in kept)
        assert last.stop is (True if kept else None)
        assert last.reply is not None
        assert all(
            nearly_equal(pixels(got), picture) for got, (_, picture) in zip(last.reply, pairs, strict=True)
        )


def test_a_refusal_is_a_first_word_and_waits_for_no_step(carrier: Carrier[Answer], gate: Gate) -> None:
    frontend = Frontend(carrier)
    frontend.call(slow=[long_job()])
    gate.shut()
    gate.wait()
    frontend.call(bad="invalid_request")
    frontend.call(much=[make_job(seed=seed) for seed in range(12)])
    for name, code in {"bad": "invalid_request", "much": "overloaded"}.items():
        [part] = frontend.parts[name]
        assert part.stop is None
        assert part.reply is not None
        assert set(codes(part.reply)) == {code}


def test_steps_that_a_scheduler_cannot_take_are_a_first_word_too(
    carrier: Carrier[Answer], gate: Gate
) -> None:
    frontend = Frontend(carrier)
    frontend.call(slow=[long_job()])
    gate.shut()
    gate.wait()
    frontend.call(bad=[make_job(), make_job(num_inference_steps=60, scheduler="LCM")])
    [part] = frontend.parts["bad"]
    assert part.stop is None
    assert part.reply is not None
    nothing, refused = part.reply
    assert nothing is None
    assert codes([refused]) == ["invalid_request"]
    assert carrier.engine.live_count == 1


def test_drawing_goes_on_between_the_calls(carrier: Carrier[Answer]) -> None:
    frontend = Frontend(carrier)
    frontend.call(drawn=[make_job()], bad="invalid_request")
    until(lambda: carrier.engine.metrics.counts["finished"] == 1)
    frontend.call()
    assert frontend.parts["drawn"][-1].reply is not None


def test_nothing_is_drawn_for_long_when_nobody_asks_any_more(carrier: Carrier[Answer]) -> None:
    frontend, counts = Frontend(carrier), carrier.engine.metrics.counts
    hook = carrier.engine._model.unet.register_forward_hook(lambda *_: time.sleep(0.01))
    frontend.call(gone=[long_job(seed) for seed in range(4)])
    steps = -1
    while steps < counts["steps"]:
        steps = counts["steps"]
        time.sleep(0.5)
    hook.remove()
    assert 0 < steps < 900
    frontend.names = []
    assert frontend.draws_a_picture()
    assert counts["cancelled"] == 4


@pytest.mark.parametrize("refused", ["400", "429"])
def test_refusals_in_every_call_do_not_keep_the_others_from_being_drawn(
    carrier: Carrier[Answer], refused: str
) -> None:
    frontend = Frontend(carrier)
    frontend.call(drawn=[make_job(num_inference_steps=10, scheduler="DDIM")])
    too_many = [make_job(seed=seed) for seed in range(12)]
    bad: list[str] = []

    def refuse_one_more() -> bool:
        bad.append(f"bad{len(bad)}")
        frontend.call(**{bad[-1]: "invalid_request" if refused == "400" else too_many})
        return "drawn" not in frontend.names

    until(refuse_one_more)
    for name in bad:
        assert [part.stop for part in frontend.parts[name]] == [None]


def test_an_error_in_the_engine_costs_only_those_who_were_in_it(
    carrier: Carrier[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    frontend, engine = Frontend(carrier), carrier.engine
    frontend.call(first=[long_job(), long_job()])

    def fail(*_: object) -> None:
        engine._finish(ticket, Failure(503, "out_of_memory", ""))
        raise MemoryError("injected")

    ticket = next(iter(carrier._owners))
    monkeypatch.setattr(engine, "_denoise", fail)
    with pytest.raises(MemoryError):
        until(lambda: bool(frontend.call()))
    monkeypatch.undo()
    with pytest.raises(MemoryError):  # nothing is drawn on what the error has left
        frontend.call()
    frontend.iterations.abandon(frontend.names, [])
    frontend.names = []
    assert frontend.draws_a_picture()


def test_a_client_that_hangs_up_is_cancelled_before_the_next_step(
    carrier: Carrier[Answer], gate: Gate
) -> None:
    frontend = Frontend(carrier)
    frontend.call(gone=[long_job(seed) for seed in range(4)])
    gate.shut()
    gate.wait()
    frontend.hang_up("gone")
    frontend.call(new=[long_job()])
    running = len(gate.rows)
    gate.let(3)
    assert gate.rows[running - 1 :] == [8, 2, 2, 2]
    assert carrier.engine.metrics.counts["cancelled"] == 4


def test_a_picture_finished_in_the_step_of_its_hang_up_is_nobodys(
    carrier: Carrier[Answer], gate: Gate
) -> None:
    frontend, lone = Frontend(carrier), make_job(num_inference_steps=1, scheduler="DDIM")
    gate.shut()
    frontend.call(gone=[lone])
    gate.wait()
    frontend.hang_up("gone")
    frontend.call()
    gate.open()
    until(lambda: carrier.engine.metrics.counts["finished"] == 1)
    assert frontend.draws_a_picture()


def test_the_next_in_line_takes_the_place_before_the_next_unet_call(
    carrier: Carrier[Answer], gate: Gate
) -> None:
    frontend, engine = Frontend(carrier), carrier.engine
    frontend.call(**{name: [long_job(seed)] for seed, name in enumerate("abcd")}, next=[long_job()])
    gate.shut()
    gate.wait()
    assert (engine.live_count, engine.metrics.counts["admitted"]) == (4, 4)
    frontend.hang_up("b")
    frontend.call()
    gate.let(1)
    assert (engine.live_count, engine.metrics.counts["admitted"]) == (4, 5)


def test_a_failure_after_the_first_word_ends_the_request_in_its_body(carrier: Carrier[Answer]) -> None:
    frontend = Frontend(carrier)
    frontend.call(drawing=[long_job()])
    frontend.names.append("new")
    parts = frontend.iterations.abandon(frontend.names, [Failure(500, "internal", "")])
    assert [part.stop for part in parts] == [True, None]
    until(lambda: not carrier.engine.busy)
    frontend.names = []
    assert frontend.draws_a_picture()


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


@pytest.mark.parametrize(("lost", "code"), [(True, EXIT_CODE), (False, 0)])
def test_a_gpu_that_answers_only_errors_ends_the_worker(lost: bool, code: int) -> None:
    program = """
import sys, torch
from handler.engine.elastic import BROKEN, Elastic
def synchronize():
    if sys.argv[1] == "True":
        raise RuntimeError("CUDA error: an illegal memory access was encountered (injected)")
def call(items):
    raise RuntimeError("CUDA error (injected)")
torch.cuda.is_initialized, torch.cuda.synchronize = lambda: True, synchronize
assert Elastic().run("unet", [1, 2], call) == [BROKEN, BROKEN]
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, str(lost)], capture_output=True, text=True, timeout=100, check=False
    )
    assert ended.returncode == code, ended.stderr
