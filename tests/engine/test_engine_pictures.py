"""The engine's pictures against diffusers' pipeline: the same bits alone, within 1/255 beside others."""

from __future__ import annotations

import random
import time

import pytest
import torch
from diffusers import StableDiffusionPipeline
from driving import draw, nearly_equal, pixels, submit
from tiny import draw_plainly, make_job

from handler.contract.drawing import Drawing
from handler.contract.job import Job, Outcome
from handler.contract.schedulers import SCHEDULERS
from handler.engine.engine import Engine
from handler.engine.memory.plan import MemoryPlan
from handler.engine.options import EngineOptions
from handler.engine.runner import Runner
from handler.engine.ticket import Ticket
from handler.engine.watchdog import Watchdog
from handler.model.model import Model

Oracle = list[tuple[Job, torch.Tensor]]


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_alone_is_the_plain_pipeline_to_the_bit(
    scheduler: str, guidance_scale: float, pipeline: StableDiffusionPipeline, model: Model, plan: MemoryPlan
) -> None:
    job = make_job(
        "a cat",
        scheduler=scheduler,
        guidance_scale=guidance_scale,
        num_inference_steps=7,
        width=96,
        seed=2**63 + 1,
        negative_prompt="a dog",
    )
    [outcome] = draw(Engine(model, EngineOptions(), plan), [job])
    assert torch.equal(pixels(outcome), draw_plainly(pipeline, job))


@pytest.mark.parametrize("options", [{}, {"vectorised": True}, {"decode_thread": True}, {"strict": True}])
def test_in_company_every_job_gets_its_own_picture(
    options: dict[str, bool], model: Model, plan: MemoryPlan, oracle: Oracle
) -> None:
    engine = Engine(model, EngineOptions(max_live=7, **options), plan)
    outcomes = draw(engine, [job for job, _ in oracle])
    engine.close()
    wrong = [
        job
        for (job, wanted), got in zip(oracle, outcomes, strict=False)
        if not nearly_equal(pixels(got), wanted)
    ]
    assert wrong == []


def test_random_interleavings(
    request: pytest.FixtureRequest, model: Model, plan: MemoryPlan, oracle: Oracle
) -> None:
    """Joins and cancels at random steps; `make soak` runs a thousand."""
    for number in range(request.config.getoption("--interleavings", default=50)):
        chance = random.Random(number)
        options = EngineOptions(max_live=chance.randint(1, 6), vectorised=number % 3 == 0)
        engine = Engine(model, options, plan)
        interleave = _interleave_beside if number % 4 == 1 else _interleave
        interleave(engine, chance, chance.sample(oracle, 6), f"interleaving {number}")


def _interleave(engine: Engine, chance: random.Random, chosen: Oracle, name: str) -> None:
    to_come, wanted, cancelled = list(chosen), {}, set()
    outcomes: dict[Ticket, Outcome] = {}
    while to_come or engine.busy:
        while to_come and chance.random() < 0.4:
            job, picture = to_come.pop()
            wanted[submit(engine, job)] = picture
        if wanted and chance.random() < 0.1:
            victim = chance.choice(sorted(wanted))
            engine.cancel(victim)
            cancelled.add(victim)
        outcomes.update(engine.step())
    _check(outcomes, wanted, cancelled, name)


def _interleave_beside(engine: Engine, chance: random.Random, chosen: Oracle, name: str) -> None:
    """The same while the engine steps in a thread of its own, so that they come in the midst of a step."""
    watchdog = Watchdog(600)
    runner = Runner(engine, watchdog)
    drawn: list[tuple[Drawing, torch.Tensor]] = []
    for job, picture in chosen:
        drawn.append((runner.draw(job), picture))
        if chance.random() < 0.15:
            chance.choice(drawn)[0].cancel()
        time.sleep(chance.uniform(0, 0.02))
    for drawing, picture in drawn:
        if not drawing.outcome.cancelled():
            got = drawing.outcome.result(timeout=60)
            assert nearly_equal(pixels(got), picture), f"{name}: a wrong picture"
    runner.close()
    watchdog.close()


def _check(
    outcomes: dict[Ticket, Outcome], wanted: dict[Ticket, torch.Tensor], cancelled: set[Ticket], name: str
) -> None:
    for ticket, picture in wanted.items():
        if ticket in outcomes:
            assert nearly_equal(pixels(outcomes[ticket]), picture), f"{name}: wrong picture for {ticket}"
        else:
            assert ticket in cancelled, f"{name}: {ticket} was forgotten"


@pytest.mark.parametrize("vectorised", [False, True])
def test_strict_pictures_are_the_same_bits_in_any_company(
    vectorised: bool, model: Model, plan: MemoryPlan, oracle: Oracle
) -> None:
    options = EngineOptions(max_live=4, strict=True, vectorised=vectorised, max_steps=8)
    chosen = [job for job, _ in oracle][:12]
    alone = {job: pixels(draw(Engine(model, options, plan), [job])[0]) for job in chosen}
    for order in range(2):
        random.Random(order).shuffle(chosen)
        outcomes = draw(Engine(model, options, plan), chosen)
        assert [
            job
            for job, got in zip(chosen, outcomes, strict=False)
            if not torch.equal(pixels(got), alone[job])
        ] == []


def test_a_repeated_prompt_is_encoded_once_and_changes_nothing(
    pipeline: StableDiffusionPipeline, model: Model, plan: MemoryPlan
) -> None:
    calls: list[int] = []
    hook = model.text_encoder.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    engine = Engine(model, EngineOptions(), plan)
    job = make_job("again")
    first, second = (pixels(draw(engine, [job])[0]) for _ in range(2))
    crowd = draw(engine, [make_job(f"crowd {number}", seed=number) for number in range(5)])
    third = pixels(draw(engine, [job])[0])
    hook.remove()
    assert calls == [1, 1, 5, 1]  # prompt, empty prompt, five prompts in one call and their empty one
    assert len(crowd) == 5
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    assert torch.equal(first, draw_plainly(pipeline, job))
