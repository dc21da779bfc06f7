"""The core's front as other doors use it: from many threads, from asyncio, with events, without polling."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from driving import nearly_equal, pixels
from frontend import Answer, Gate, codes, long_job, until
from tiny import layers, make_job

from handler.contract.events import Done, Event, Failed, Queued, Started, Step
from handler.contract.job import Failure, Job
from handler.doors.answers import Answers
from handler.engine.engine import Engine
from handler.engine.memory.plan import MemoryPlan
from handler.engine.options import EngineOptions
from handler.engine.runner import Runner
from handler.engine.watchdog import Watchdog
from handler.model.model import Model

SHORT = make_job(num_inference_steps=1, scheduler="DDIM")


@pytest.fixture
def runner(model: Model, plan: MemoryPlan) -> Iterator[Runner]:
    """Four places and a queue of 64."""
    watchdog = Watchdog(seconds=600)
    made = Runner(Engine(model, EngineOptions(max_live=4), plan), watchdog)
    yield made
    made.close()
    watchdog.close()


@pytest.fixture
def gate(runner: Runner) -> Iterator[Gate]:
    made = Gate(runner)
    yield made
    made.open()


@pytest.fixture
def answers(runner: Runner) -> Iterator[Answers[Answer]]:
    made: Answers[Answer] = Answers(runner)
    yield made
    made.close()


def test_threads_draw_side_by_side_and_each_gets_its_own_picture(
    runner: Runner, oracle: list[tuple[Job, torch.Tensor]]
) -> None:
    def draw(pair: tuple[Job, torch.Tensor]) -> bool:
        return nearly_equal(pixels(runner.draw(pair[0]).outcome.result(timeout=60)), pair[1])

    with ThreadPoolExecutor(16) as callers:
        assert list(callers.map(draw, oracle[:32])) == [True] * 32


def test_asyncio_awaits_a_drawing_and_goes_on_meanwhile(runner: Runner, gate: Gate) -> None:
    async def door() -> tuple[int, list[str]]:
        gate.shut()
        drawing = asyncio.wrap_future(runner.draw(SHORT).outcome)
        turns = 0
        while not drawing.done():
            turns += 1
            await asyncio.sleep(0)
            if turns == 100:
                gate.open()
        return turns, codes([await drawing])

    turns, told = asyncio.run(door())
    assert told == ["picture"]
    assert turns >= 100


def test_a_cancelled_asyncio_task_frees_its_place_before_the_next_step(runner: Runner, gate: Gate) -> None:
    async def hang_up() -> None:
        drawing = asyncio.ensure_future(asyncio.wrap_future(runner.draw(long_job()).outcome))
        await asyncio.to_thread(gate.wait)
        drawing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await drawing

    gate.shut()
    asyncio.run(hang_up())
    runner.draw(long_job(8))
    gate.let(1)
    assert gate.rows == [2, 2], "one image in each of the two steps"
    assert runner.engine.metrics.counts["cancelled"] == 1


def names(told: list[Event]) -> list[str]:
    return [event.name for event in told]


def test_events_name_every_step_of_their_own_job_in_order(runner: Runner) -> None:
    told: list[Event] = []
    threads: list[str] = []

    def listen(event: Event) -> None:
        told.append(event)
        threads.append(threading.current_thread().name)

    others = [runner.draw(make_job(seed=seed)) for seed in range(2)]
    drawing = runner.draw(make_job(num_inference_steps=5, scheduler="DDIM"), listen)
    assert threads == [threading.current_thread().name, *threads[1:]], "queued is told at once"
    assert codes([drawing.outcome.result(timeout=60)]) == ["picture"]
    assert names(told) == ["queued", "started", *["step"] * 5, "done"]
    queued, started, *steps, done = told
    assert isinstance(queued, Queued)
    assert isinstance(started, Started)
    assert isinstance(done, Done)
    assert started.steps == 5
    assert [(step.step, step.steps) for step in steps if isinstance(step, Step)] == [
        (step, 5) for step in range(1, 6)
    ]
    seconds = [step.seconds for step in steps if isinstance(step, Step)]
    assert seconds == sorted(seconds)
    lefts = [step.seconds_left for step in steps if isinstance(step, Step)]
    assert lefts == pytest.approx([seconds[i] / (i + 1) * (4 - i) for i in range(5)])
    assert done.seconds >= started.seconds + seconds[-1]
    assert set(threads[1:]) == {"marquee-engine"}
    assert codes([other.outcome.result(timeout=60) for other in others]) == ["picture"] * 2


def test_a_listener_that_fails_costs_nobody_a_picture(runner: Runner) -> None:
    heard: list[str] = []

    def fail(event: Event) -> None:
        heard.append(event.name)
        if event.name == "step":
            raise MemoryError("injected")

    neighbour = runner.draw(make_job(num_inference_steps=4, scheduler="DDIM", seed=1))
    drawing = runner.draw(make_job(num_inference_steps=4, scheduler="DDIM"), fail)
    assert codes([one.outcome.result(timeout=60) for one in (drawing, neighbour)]) == ["picture"] * 2
    assert heard == ["queued", "started", "step"]


def test_the_place_in_the_queue_is_told_when_it_changes_and_only_then(runner: Runner, gate: Gate) -> None:
    gate.shut()
    live = [runner.draw(long_job(seed)) for seed in range(4)]
    gate.wait()
    gate.let(1)  # the first step may have begun with fewer than four
    told: dict[int, list[Event]] = {seed: [] for seed in range(3)}
    queued = [runner.draw(long_job(10 + seed), told[seed].append) for seed in range(3)]

    def places(seed: int) -> list[int]:
        return [event.place for event in told[seed] if isinstance(event, Queued)]

    assert [places(seed) for seed in range(3)] == [[1], [2], [3]]
    gate.let(2)
    assert [places(seed) for seed in range(3)] == [[1], [2], [3]], "nothing has changed in two steps"
    queued[1].cancel()
    gate.let(1)
    assert [places(seed) for seed in range(3)] == [[1], [2], [3, 2]], "nothing is told of a cancelled one"
    live[0].cancel()
    gate.let(1)
    assert names(told[0])[:2] == ["queued", "started"]
    assert places(2) == [3, 2, 1]
    waits = [event.seconds_left for event in told[2] if isinstance(event, Queued)]
    assert min(waits) > 0
    for drawing in (*live, *queued):
        drawing.cancel()


def test_a_refused_job_tells_that_it_failed_and_nothing_else(runner: Runner, gate: Gate) -> None:
    gate.shut()
    taken = [runner.draw(long_job(seed)) for seed in range(68)]
    gate.wait()
    told: list[Event] = []
    runner.draw(long_job(), told.append)
    [failure] = told
    assert isinstance(failure, Failed)
    assert (failure.status, failure.code) == (429, "overloaded")
    for drawing in taken:
        drawing.cancel()


def test_a_cancelled_job_tells_nothing_more(runner: Runner, gate: Gate) -> None:
    told: list[Event] = []
    drawing = runner.draw(long_job(), told.append)
    until(lambda: len(told) > 3)
    gate.shut()
    gate.wait()
    drawing.cancel()
    known = len(told)
    gate.open()
    until(lambda: not runner.engine.busy)
    assert len(told) == known
    assert set(names(told)) == {"queued", "started", "step"}


def test_drawing_needs_nobody_who_asks(runner: Runner) -> None:
    hook = layers(runner.engine.model.unet).register_forward_hook(lambda *_: time.sleep(0.1))
    drawing = runner.draw(make_job(num_inference_steps=25, scheduler="DDIM"))
    until(drawing.outcome.done)  # over two seconds, in which nobody says a word
    hook.remove()
    assert codes([drawing.outcome.result()]) == ["picture"]


def test_a_cancelled_drawing_wakes_those_who_wait_for_it(runner: Runner, gate: Gate) -> None:
    gate.shut()
    live, queued = runner.draw(long_job()), [runner.draw(long_job(seed)) for seed in range(6)]
    gate.wait()
    for drawing in (live, queued[-1]):
        drawing.cancel()
        assert concurrent.futures.wait([drawing.outcome], timeout=60).done == {drawing.outcome}
    gate.open()
    for drawing in queued:
        drawing.cancel()
    until(lambda: not runner.engine.busy)
    assert runner.engine.metrics.counts["cancelled"] == 7


def test_a_full_queue_refuses_with_a_retry_after_and_without_a_ticket(runner: Runner, gate: Gate) -> None:
    gate.shut()
    taken = [runner.draw(long_job(seed)) for seed in range(68)]
    gate.wait()
    refused = runner.draw(long_job())
    assert [drawing.refused for drawing in (*taken, refused)] == [False] * 68 + [True]
    failure = refused.outcome.result(timeout=0)
    assert isinstance(failure, Failure)
    assert (failure.status, failure.code) == (429, "overloaded")
    assert failure.retry_after_seconds
    for drawing in taken:
        drawing.cancel()


def test_a_request_of_several_jobs_is_awaited_as_one(answers: Answers[Answer]) -> None:
    told: list[tuple[int, int]] = []

    def listen(job: int, event: Event) -> None:
        if isinstance(event, Step):
            told.append((job, event.step))

    async def door() -> Answer:
        jobs = [make_job(num_inference_steps=2, scheduler="DDIM", seed=seed) for seed in range(3)]
        pending = answers.answer(jobs, list, listen)
        return await asyncio.wrap_future(pending.reply)

    assert codes(asyncio.run(door())) == ["picture"] * 3
    assert sorted(told) == [(job, step) for job in range(3) for step in (1, 2)]


def test_a_hung_up_request_frees_all_its_places(answers: Answers[Answer], runner: Runner, gate: Gate) -> None:
    async def hang_up() -> None:
        pending = answers.answer([long_job(seed) for seed in range(6)], list)
        reply = asyncio.ensure_future(asyncio.wrap_future(pending.reply))
        await asyncio.to_thread(gate.wait)
        reply.cancel()
        await asyncio.wait([reply])
        assert concurrent.futures.wait([pending.reply], timeout=60).done

    gate.shut()
    asyncio.run(hang_up())
    gate.open()
    until(lambda: not runner.engine.busy)
    assert runner.engine.metrics.counts["cancelled"] == 6


def test_giving_up_answers_with_what_is_drawn(answers: Answers[Answer], runner: Runner) -> None:
    pending = answers.answer([SHORT, long_job()], list)
    until(lambda: runner.engine.metrics.counts["finished"] == 1)
    pending.give_up(Failure(504, "took_too_long", ""))
    assert codes(pending.reply.result(timeout=60)) == ["picture", "took_too_long"]
    until(lambda: not runner.engine.busy)


def test_a_reply_that_cannot_be_made_is_an_error_for_its_own_caller(answers: Answers[Answer]) -> None:
    def fail(_: object) -> Answer:
        raise OSError("injected")

    bad, good = answers.answer([SHORT], fail), answers.answer([SHORT], list)
    with pytest.raises(OSError, match="injected"):
        bad.reply.result(timeout=60)
    assert codes(good.reply.result(timeout=60)) == ["picture"]
