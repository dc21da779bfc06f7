"""Image to image, inpainting and the end of guidance: what diffusers' own pipelines draw."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from diffusers import StableDiffusionPipeline
from driving import draw, nearly_equal, pixels, reason, submit
from PIL import Image
from tiny import (
    as_model,
    changing,
    draw_plainly,
    inpainting,
    layers,
    make_job,
    run_plainly,
    source_picture,
    widen,
)

from handler.contract.job import Failure, Job, Outcome, SourcePicture
from handler.contract.schedulers import SCHEDULERS
from handler.engine.engine import Engine
from handler.engine.memory.plan import MemoryPlan
from handler.engine.options import EngineOptions
from handler.engine.ticket import Ticket
from handler.model.model import Model

KINDS: dict[str, Callable[..., Job]] = {"image": changing, "inpaint": inpainting, "inpaint9": inpainting}
STRENGTHS = {"image": (0.5, 0.8, 1.0), "inpaint": (0.07, 0.5, 0.8, 1.0), "inpaint9": (0.07, 0.5, 0.8, 1.0)}
CASES = [(kind, strength) for kind in KINDS for strength in STRENGTHS[kind]]

Oracles = Callable[[str, Job], torch.Tensor]


@pytest.fixture(scope="module")
def pipelines(pipeline: StableDiffusionPipeline) -> dict[str, StableDiffusionPipeline]:
    return {"image": pipeline, "inpaint": pipeline, "inpaint9": widen(pipeline)}


@pytest.fixture(scope="module")
def models(pipelines: dict[str, StableDiffusionPipeline]) -> dict[str, Model]:
    return {kind: as_model(pipeline) for kind, pipeline in pipelines.items()}


@pytest.fixture(scope="module")
def latent_of(pipelines: dict[str, StableDiffusionPipeline]) -> Oracles:
    """The latents (4, h, w) of diffusers' own pipelines, each drawn once."""
    known: dict[tuple[str, str], torch.Tensor] = {}

    def drawn(kind: str, job: Job) -> torch.Tensor:
        key = (kind, repr(job))
        if key not in known:
            known[key] = run_plainly(pipelines[kind], job, output_type="latent")
        return known[key]

    return drawn


def latents(engine: Engine, jobs: Sequence[Job]) -> list[torch.Tensor]:
    """What is decoded, (4, h, w) for each job."""
    found: dict[int, torch.Tensor] = {}
    take = engine.batch.take_drawn

    def noting() -> list[object]:
        drawn = take()
        found.update({image.ticket.number: latent[0] for image, latent in drawn})
        return list(drawn)

    engine.batch.take_drawn = noting  # type: ignore[assignment,method-assign]
    for outcome in draw(engine, jobs):
        pixels(outcome)
    return [found[number] for number in sorted(found)]


def far(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference over the largest value."""
    return float((got - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize(("kind", "strength"), CASES)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_alone_the_plain_pipelines_bits(
    scheduler: str,
    kind: str,
    strength: float,
    models: dict[str, Model],
    plan: MemoryPlan,
    latent_of: Oracles,
) -> None:
    job = KINDS[kind](strength, scheduler=scheduler)
    [latent] = latents(Engine(models[kind], EngineOptions(), plan), [job])
    assert torch.equal(latent, latent_of(kind, job))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_as_one_product_the_same_latents(
    scheduler: str, kind: str, models: dict[str, Model], plan: MemoryPlan, latent_of: Oracles
) -> None:
    jobs = [KINDS[kind](strength, scheduler=scheduler) for strength in STRENGTHS[kind]]
    engine = Engine(models[kind], EngineOptions(vectorised=True, max_live=4), plan)
    for job, latent in zip(jobs, latents(engine, jobs), strict=True):
        assert far(latent, latent_of(kind, job)) <= 5e-6, job.strength


@pytest.mark.parametrize("vectorised", [False, True])
def test_all_families_of_one_unet_share_its_calls(
    vectorised: bool,
    pipelines: dict[str, StableDiffusionPipeline],
    models: dict[str, Model],
    plan: MemoryPlan,
) -> None:
    """They join at different steps, with schedulers, step counts and strengths of their own."""
    model = models["image"]
    jobs = [
        make_job("x", num_inference_steps=9, seed=1),
        changing(0.7, scheduler="Euler ancestral"),
        inpainting(1.0, scheduler="DPM++ 2M"),
        inpainting(0.6, scheduler="UniPC", guidance_until=0.4),
    ]
    engine = Engine(model, EngineOptions(vectorised=vectorised), plan)
    rows: list[int] = []
    hook = layers(model.unet).register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    tickets: list[Ticket] = []
    outcomes: dict[Ticket, Outcome] = {}
    steps = 0
    while engine.busy or len(tickets) < len(jobs):
        if len(tickets) < len(jobs):
            tickets.append(submit(engine, jobs[len(tickets)]))
        outcomes.update(engine.step())
        steps += 1
    hook.remove()
    assert max(rows) == 8
    assert len(rows) == steps, "one call a step"
    for ticket, job in zip(tickets, jobs, strict=True):
        assert nearly_equal(pixels(outcomes[ticket]), draw_plainly(pipelines["image"], job))


@pytest.mark.parametrize("vectorised", [False, True])
@pytest.mark.parametrize("kind", ["image", "inpaint9"])
def test_strict_pictures_of_all_families_are_the_same_bits_in_any_company(
    kind: str, vectorised: bool, models: dict[str, Model], plan: MemoryPlan
) -> None:
    jobs = [
        inpainting(0.6, scheduler="Euler ancestral"),
        inpainting(1.0, scheduler="UniPC", guidance_until=0.3),
        inpainting(0.3, scheduler="PNDM", guidance_scale=1.0),
    ]
    if kind == "image":
        jobs += [changing(0.5), changing(0.9, scheduler="LCM", guidance_until=0.5), make_job()]
    options = EngineOptions(max_live=3, strict=True, vectorised=vectorised, max_steps=15)
    alone = [latents(Engine(models[kind], options, plan), [job])[0] for job in jobs]
    together = latents(Engine(models[kind], options, plan), jobs)
    assert all(map(torch.equal, together, alone))
    backwards = latents(Engine(models[kind], options, plan), jobs[::-1])
    assert all(map(torch.equal, backwards[::-1], alone))


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("kind", ["text", "image", "inpaint", "inpaint9"])
@pytest.mark.parametrize("scheduler", ["PNDM", "DDIM", "DPM++ 2M"])
def test_where_guidance_ends_the_plain_pipelines_bits_from_fewer_rows(
    scheduler: str,
    kind: str,
    share: float,
    pipelines: dict[str, StableDiffusionPipeline],
    models: dict[str, Model],
    plan: MemoryPlan,
    latent_of: Oracles,
) -> None:
    make: Callable[..., Job] = partial(KINDS[kind], 1.0) if kind in KINDS else make_job
    kind = kind if kind in KINDS else "image"
    job = make(scheduler=scheduler, num_inference_steps=15, guidance_until=share)
    rows: list[int] = []
    unet = layers(models[kind].unet)
    hook = unet.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    [latent] = latents(Engine(models[kind], EngineOptions(), plan), [job])
    hook.remove()
    assert torch.equal(latent, latent_of(kind, job))
    steps = len(rows)
    guided = min(steps, int(steps * share) + 1)
    assert rows == [2] * guided + [1] * (steps - guided)
    if share == 0.4 and scheduler != "PNDM":
        assert sum(rows) == 22, "27 % fewer than 30"


def test_a_picture_of_another_size_is_resized_as_diffusers_does(
    pipeline: StableDiffusionPipeline, models: dict[str, Model], plan: MemoryPlan, latent_of: Oracles
) -> None:
    large = dataclasses.replace(
        inpainting(0.8), image=source_picture(150, 90), mask_image=SourcePicture(_disc(101, 203), "")
    )
    [latent] = latents(Engine(models["inpaint"], EngineOptions(), plan), [large])
    assert torch.equal(latent, latent_of("inpaint", large))


def _disc(width: int, height: int) -> Image.Image:
    return Image.radial_gradient("L").resize((width, height))


def test_a_large_picture_does_not_wait_in_the_queue(model: Model, plan: MemoryPlan) -> None:
    engine = Engine(model, EngineOptions(), plan)
    submit(engine, dataclasses.replace(changing(0.5), image=source_picture(500, 500)))
    waiting = engine.admission._waiting.first()
    assert waiting
    assert waiting.job.image
    assert waiting.job.image.image.size == (64, 64)


@pytest.mark.parametrize(
    ("strength", "steps", "least"), [(0.06, 15, "0.067"), (0.0, 4, "0.25"), (0.3, 3, "0.334")]
)
def test_a_strength_that_leaves_no_step_is_refused(
    model: Model, plan: MemoryPlan, strength: float, steps: int, least: str
) -> None:
    engine = Engine(model, EngineOptions(), plan)
    for make in (changing, inpainting):
        refusal = engine.check(make(strength, num_inference_steps=steps))
        assert isinstance(refusal, Failure)
        assert refusal.status == 400
        assert f"strength is {strength:g}" in refusal.message
        assert f"{least} or more" in refusal.message
        assert engine.check(make(float(least), num_inference_steps=steps)) is None


def test_a_unet_for_inpainting_refuses_the_other_families(models: dict[str, Model], plan: MemoryPlan) -> None:
    engine = Engine(models["inpaint9"], EngineOptions(), plan)
    for job, name in ((make_job(), "text to image"), (changing(0.5), "image to image")):
        refusal = engine.check(job)
        assert isinstance(refusal, Failure)
        assert refusal.status == 400
        assert name in refusal.message
        assert "mask_image" in refusal.message
    assert engine.check(inpainting(0.5)) is None


@pytest.mark.parametrize("vectorised", [False, True])
def test_an_encoding_without_memory_fails_its_own_picture_alone(
    vectorised: bool, model: Model, plan: MemoryPlan
) -> None:
    jobs = [make_job(), changing(0.5), inpainting(0.5), changing(0.6)]
    options = EngineOptions(vectorised=vectorised, max_live=4)
    wanted = draw(Engine(model, options, plan), jobs)
    calls = itertools.count()

    def short(*_: object) -> None:
        if next(calls) == 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory (injected)")

    engine = Engine(model, options, plan)
    hook = layers(model.vae).encoder.register_forward_pre_hook(short)
    outcomes = draw(engine, jobs)
    hook.remove()
    assert reason(outcomes[2]) == "out_of_memory"
    assert isinstance(outcomes[2], Failure)
    assert outcomes[2].status == 503
    for index in (0, 1, 3):
        assert nearly_equal(pixels(outcomes[index]), pixels(wanted[index]))
    again = draw(engine, jobs)  # its place is free, and everybody else's
    assert all(nearly_equal(pixels(got), pixels(want)) for got, want in zip(again, wanted, strict=True))


def test_one_picture_is_encoded_between_two_steps_of_others(model: Model, plan: MemoryPlan) -> None:
    encoded: list[int] = []
    hook = layers(model.vae).encoder.register_forward_pre_hook(lambda *_: encoded.append(1))
    engine = Engine(model, EngineOptions(max_live=8), plan)
    submit(engine, make_job(num_inference_steps=8))
    engine.step()
    for seed in range(3):
        submit(engine, dataclasses.replace(changing(1.0), seed=seed))
    counts = []
    for _ in range(4):
        engine.step()
        counts.append(len(encoded))
    hook.remove()
    assert counts == [1, 2, 3, 3]
