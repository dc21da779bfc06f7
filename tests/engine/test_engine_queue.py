"""Admission: bounded, by deadline and age, and a place is free the moment its job is cancelled."""

from __future__ import annotations

import dataclasses
import gc
import threading

import psutil
import pytest
import torch
from driving import draw, pixels, reason, submit
from tiny import layers, make_job

from handler.contract.job import Failure, Outcome, Picture
from handler.engine.engine import Engine
from handler.engine.memory.plan import MemoryPlan
from handler.engine.options import EngineOptions
from handler.engine.ticket import Ticket
from handler.model.model import Model


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_full_queue_refuses_with_the_seconds_to_wait(model: Model, plan: MemoryPlan) -> None:
    clock = Clock()
    engine = Engine(model, EngineOptions(max_live=2, max_queue=3), plan, clock)
    for number in range(5):
        submit(engine, make_job(seed=number, num_inference_steps=10))
    engine.pace.record(2.0)
    refused = engine.submit(make_job())
    assert isinstance(refused, Failure)
    assert (refused.status, refused.code) == (429, "overloaded")
    assert refused.retry_after_seconds == 2.0 * 5 * 10 / 2  # 50 steps, two at a time, two seconds each
    engine.step()
    assert engine.live_count == 2
    assert isinstance(engine.submit(make_job()), Failure), "three wait, so the queue is still full"
    assert engine.metrics.counts["refused"] == 2


def test_jobs_on_their_way_from_the_queue_to_their_places_are_counted(model: Model, plan: MemoryPlan) -> None:
    engine = Engine(model, EngineOptions(max_live=2, max_queue=0), plan)
    reached, go_on = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        reached.set()
        go_on.wait(60)

    hook = model.text_encoder.register_forward_pre_hook(wait)
    for number in range(2):
        submit(engine, make_job(seed=number))
    step = threading.Thread(target=engine.step)
    step.start()
    assert reached.wait(60)
    assert engine.busy
    refused = engine.submit(make_job())
    go_on.set()
    step.join()
    hook.remove()
    assert isinstance(refused, Failure)
    assert engine.live_count == 2


def test_pace_is_what_was_measured(model: Model, plan: MemoryPlan) -> None:
    clock = Clock()
    engine = Engine(model, EngineOptions(), plan, clock)
    hook = layers(model.unet).register_forward_hook(lambda *_: setattr(clock, "now", clock.now + 3.0))
    draw(engine, [make_job(num_inference_steps=6, scheduler="DDIM")])
    hook.remove()
    assert engine.pace.step_seconds == pytest.approx(3.0)


def test_the_nearest_deadline_goes_first_and_age_counts(model: Model, plan: MemoryPlan) -> None:
    clock = Clock()
    engine = Engine(model, EngineOptions(max_live=1, patience_seconds=60), plan, clock)
    names: dict[Ticket, str] = {}
    for name, deadline in [("old", None), ("late", 100.0), ("soon", 10.0), ("young", None)]:
        names[
            submit(engine, make_job(num_inference_steps=1, scheduler="DDIM", deadline_seconds=deadline))
        ] = name
        clock.now += 1
    order = []
    while engine.busy:
        order += [names[ticket] for ticket, _ in engine.step()]
    assert order == ["soon", "old", "late", "young"], "naming a far deadline costs no place"


def test_a_job_whose_deadline_passed_in_the_queue_is_not_drawn(model: Model, plan: MemoryPlan) -> None:
    clock = Clock()
    engine = Engine(model, EngineOptions(max_live=1), plan, clock)
    first = submit(engine, make_job(deadline_seconds=5.0))
    second = submit(engine, make_job(deadline_seconds=6.0))
    engine.step()
    clock.now = 10.0
    outcomes: dict[Ticket, Outcome] = {}
    while engine.busy:
        outcomes.update(engine.step())
    assert isinstance(outcomes[first], Picture)
    assert reason(outcomes[second]) == "deadline_exceeded"


def test_cancelling_frees_the_place_before_the_next_step(model: Model, plan: MemoryPlan) -> None:
    rows: list[int] = []
    hook = layers(model.unet).register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    engine = Engine(model, EngineOptions(max_live=1), plan)
    hung_up, waiting, third = (submit(engine, make_job(seed=seed, guidance_scale=1.0)) for seed in range(3))
    engine.step()
    engine.cancel(hung_up)
    engine.cancel(waiting)
    engine.cancel(waiting)
    assert engine.live_count == 0
    engine.step()
    assert engine.live_count == 1
    assert rows == [1, 1]
    outcomes: dict[Ticket, Outcome] = {}
    while engine.busy:
        outcomes.update(engine.step())
    hook.remove()
    assert list(outcomes) == [third]
    assert engine.metrics.counts["cancelled"] == 2


@pytest.mark.parametrize("vectorised", [False, True])
def test_jobs_of_one_size_share_each_unet_call(vectorised: bool, model: Model, plan: MemoryPlan) -> None:
    rows: list[int] = []
    hook = layers(model.unet).register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    jobs = [
        make_job(num_inference_steps=2, scheduler="DDIM"),
        make_job(num_inference_steps=2, scheduler="Euler", guidance_scale=1.0),
        make_job(num_inference_steps=1, scheduler="LCM", guidance_scale=9.0),
        make_job(num_inference_steps=1, scheduler="DDIM", width=32),
    ]
    draw(Engine(model, EngineOptions(vectorised=vectorised), plan), jobs)
    hook.remove()
    assert rows == [5, 2, 3]  # step 1: 2+1+2 rows of one size, 2 of the other; step 2: 2+1


def test_impossible_settings_fail_alone(model: Model, plan: MemoryPlan) -> None:
    good = make_job(seed=1)
    bad = make_job(num_inference_steps=60, scheduler="LCM")  # distilled for 50 at most
    for vectorised in (False, True):
        outcomes = draw(Engine(model, EngineOptions(vectorised=vectorised), plan), [bad, good])
        assert reason(outcomes[0]) == "invalid_request"
        assert isinstance(outcomes[1], Picture)


@pytest.mark.parametrize("vectorised", [False, True])
def test_numbers_that_are_not_finite_stay_with_their_job(
    vectorised: bool, model: Model, plan: MemoryPlan
) -> None:
    def poison(
        _: object, inputs: tuple[torch.Tensor, ...], outputs: tuple[torch.Tensor]
    ) -> tuple[torch.Tensor]:
        # Rows 0 and 1 of two images without guidance; the first is the poisoned one while it lives.
        if len(inputs[0]) == 2:
            outputs[0][0] = float("nan")
        return outputs

    poisoned = make_job(guidance_scale=1.0, num_inference_steps=2, scheduler="DDIM")
    neighbour = make_job(guidance_scale=1.0, num_inference_steps=4, seed=3)
    options = EngineOptions(vectorised=vectorised, max_live=2)
    alone = pixels(draw(Engine(model, options, plan), [neighbour])[0])
    engine = Engine(model, options, plan)
    hook = layers(model.unet).register_forward_hook(poison)
    outcomes = draw(engine, [poisoned, neighbour])
    hook.remove()
    assert reason(outcomes[0]) == "not_finite"
    assert torch.equal(pixels(outcomes[1]), alone)
    # The place of the poisoned job is used again without a trace of it.
    assert torch.equal(pixels(draw(engine, [neighbour])[0]), alone)


class FreeUNet:
    """Costs nothing and predicts its input."""

    def __init__(self, config: object) -> None:
        self.config = config

    def __call__(self, sample: torch.Tensor, *_: object, **__: object) -> tuple[torch.Tensor]:
        return (sample,)


class FreeAutoencoder:
    """Costs nothing and decodes everything to grey."""

    dtype = torch.float32

    def __init__(self, config: object) -> None:
        self.config = config

    def decode(self, z: torch.Tensor, return_dict: bool = True) -> tuple[torch.Tensor]:
        return (z.new_zeros(len(z), 3, 8 * z.shape[2], 8 * z.shape[3]),)

    def encode(self, x: torch.Tensor, return_dict: bool = True) -> tuple[object]:
        raise NotImplementedError


def test_ten_thousand_requests_leave_no_memory_behind(model: Model, plan: MemoryPlan) -> None:
    """A thousand of them hang up after the first step."""
    stub = dataclasses.replace(model, unet=FreeUNet(model.unet.config), vae=FreeAutoencoder(model.vae.config))
    engine = Engine(stub, EngineOptions(max_live=16, max_queue=100, text_cache=32), plan)
    sizes = []
    for batch in range(100):
        tiny = {"num_inference_steps": 2, "scheduler": "DDIM", "width": 16, "height": 16}
        tickets = [submit(engine, make_job(f"{batch} {n // 10}", seed=n, **tiny)) for n in range(100)]
        engine.step()
        for ticket in tickets[10:20]:
            engine.cancel(ticket)
        while engine.busy:
            engine.step()
        if batch in (10, 99):
            gc.collect()
            sizes.append(psutil.Process().memory_info().rss)
    assert engine.metrics.counts["finished"] == 9000
    assert engine.metrics.counts["cancelled"] == 1000
    assert sizes[1] < 1.05 * sizes[0]
    assert len(engine.metrics.observations) <= engine.metrics.KEPT
