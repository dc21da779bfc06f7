"""The safety checker: diffusers' verdict on every picture, and a flagged one is never lost or black."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from driving import draw, nearly_equal, pixels, reason
from PIL import Image, ImageStat
from tiny import PIPELINES, changing, inpainting, make_job
from tiny_checker import SIDE, flag_half, make_checker

from handler.contract.events import Event, Preview
from handler.contract.job import Job, Outcome, Picture, Safety
from handler.engine.engine import Engine
from handler.engine.memory.footprint import measure_footprint
from handler.engine.memory.plan import Footprint, MemoryPlan
from handler.engine.options import EngineOptions
from handler.engine.safety import blurred
from handler.model.model import Model
from handler.model.safety_checker import SafetyChecker
from handler.model.schedulers import make_scheduler

JOBS = [
    *(make_job(seed=seed, num_inference_steps=2, scheduler="DDIM") for seed in range(6)),
    make_job(seed=8, num_inference_steps=2, scheduler="Euler", width=96),
    changing(0.5, seed=9, num_inference_steps=4),
    inpainting(0.5, seed=10, num_inference_steps=4),
]


@dataclass(frozen=True)
class Drawn:
    """What the jobs give without a checker, and the verdicts of diffusers' own pipelines, each job alone."""

    model: Model
    pictures: list[torch.Tensor]
    verdicts: list[bool]


@pytest.fixture(scope="module")
def drawn(model: Model, pipeline: StableDiffusionPipeline, plan: MemoryPlan) -> Drawn:
    plain = draw(Engine(model, EngineOptions(), plan), JOBS)
    module, extractor = make_checker()
    flag_half(module, extractor, [image(outcome) for outcome in plain])
    checked = replace(model, safety_checker=SafetyChecker(module, extractor, "1" * 64))
    verdicts = [diffusers_verdict(pipeline, module, extractor, job) for job in JOBS]
    assert 2 < sum(verdicts) < len(JOBS) - 2
    return Drawn(checked, [pixels(outcome) for outcome in plain], verdicts)


def image(outcome: Outcome) -> Image.Image:
    assert isinstance(outcome, Picture), outcome
    assert outcome.image is not None
    return outcome.image


def diffusers_verdict(pipeline: StableDiffusionPipeline, module: Any, extractor: Any, job: Job) -> bool:
    """What StableDiffusionPipeline and its kin report beside the picture, which they paint black."""
    parts = {**pipeline.components, "scheduler": make_scheduler(job.scheduler, pipeline.scheduler)}
    parts.update(safety_checker=module, feature_extractor=extractor)
    plain = PIPELINES[job.family](**parts)
    plain.set_progress_bar_config(disable=True)
    given: dict[str, Any] = {"width": job.width, "height": job.height} if job.image is None else {}
    if job.image is not None:
        given.update(image=job.image.image, strength=job.strength)
    if job.mask_image is not None:
        given.update(mask_image=job.mask_image.image)
    done = plain(
        job.prompt,
        num_inference_steps=job.num_inference_steps,
        guidance_scale=job.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(job.seed),
        **given,
    )
    return bool(done.nsfw_content_detected[0])


def engine_of(drawn: Drawn, plan: MemoryPlan, **options: Any) -> Engine:
    return Engine(drawn.model, EngineOptions(**options), plan)


def safeties(outcomes: list[Outcome]) -> list[Safety | None]:
    return [outcome.safety for outcome in outcomes if isinstance(outcome, Picture)]


@pytest.mark.parametrize("decode_thread", [False, True])
def test_verdicts_are_those_of_diffusers_and_a_sent_picture_is_as_it_was_drawn(
    drawn: Drawn, plan: MemoryPlan, decode_thread: bool
) -> None:
    engine = engine_of(drawn, plan, safety="send", decode_thread=decode_thread)
    outcomes = draw(engine, JOBS)
    engine.close()
    assert safeties(outcomes) == [Safety(verdict, "sent") for verdict in drawn.verdicts]
    for outcome, wanted in zip(outcomes, drawn.pictures, strict=True):
        assert torch.equal(pixels(outcome), wanted)


def test_a_flagged_picture_is_blurred_and_the_others_keep_their_bits(drawn: Drawn, plan: MemoryPlan) -> None:
    outcomes = draw(engine_of(drawn, plan), JOBS)
    for outcome, wanted, flagged in zip(outcomes, drawn.pictures, drawn.verdicts, strict=True):
        assert isinstance(outcome, Picture)
        assert outcome.flagged is flagged
        assert outcome.safety == Safety(flagged, "blurred" if flagged else "sent")
        shown = blurred(Image.fromarray(wanted.numpy())) if flagged else Image.fromarray(wanted.numpy())
        assert image(outcome).tobytes() == shown.tobytes()
        assert not flagged or image(outcome).tobytes() != wanted.numpy().tobytes()


def test_a_withheld_picture_leaves_the_engine_without_its_pixels(drawn: Drawn, plan: MemoryPlan) -> None:
    outcomes = draw(engine_of(drawn, plan, safety="withhold"), JOBS)
    for outcome, wanted, flagged in zip(outcomes, drawn.pictures, drawn.verdicts, strict=True):
        assert isinstance(outcome, Picture)
        assert outcome.safety == Safety(flagged, "withheld" if flagged else "sent")
        assert outcome.image is None if flagged else torch.equal(pixels(outcome), wanted)


@pytest.mark.parametrize(("safety", "shown"), [("send", 2), ("blur", 0), ("withhold", 0)])
def test_no_preview_is_shown_of_a_picture_that_may_be_changed(
    drawn: Drawn, plan: MemoryPlan, safety: str, shown: int
) -> None:
    told: list[Event] = []
    engine = engine_of(drawn, plan, safety=safety)
    engine.submit(make_job(seed=0, num_inference_steps=6, previews=2), told.append)
    while engine.busy:
        engine.step()
    assert sum(isinstance(event, Preview) for event in told) == shown


def test_without_a_checker_there_is_no_verdict(model: Model, plan: MemoryPlan) -> None:
    [outcome] = draw(Engine(model, EngineOptions(), plan), JOBS[:1])
    assert isinstance(outcome, Picture)
    assert (outcome.safety, outcome.flagged) == (None, None)


@contextmanager
def failing(model: Model, check: Callable[[int], None]) -> Iterator[list[int]]:
    """``check`` gets the rows of each call of the checker; yields them."""
    asked: list[int] = []

    def before(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
        asked.append(len(inputs[0]))
        check(len(inputs[0]))

    assert model.safety_checker is not None
    hook = model.safety_checker.module.vision_model.register_forward_pre_hook(before)
    try:
        yield asked
    finally:
        hook.remove()


def no_memory(fits: Callable[[int], bool]) -> Callable[[int], None]:
    def check(rows: int) -> None:
        if not fits(rows):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory (injected)")

    return check


def test_a_check_without_memory_is_sliced_and_loses_nobody(drawn: Drawn, plan: MemoryPlan) -> None:
    jobs = JOBS[:4]
    with failing(drawn.model, no_memory(lambda rows: rows == 1)) as asked:
        outcomes = draw(engine_of(drawn, plan, safety="send"), jobs)
    assert asked == [4, 2, 1, 1, 1, 1]
    assert [one and one.flagged for one in safeties(outcomes)] == drawn.verdicts[:4]


def test_a_check_that_memory_never_has_room_for_fails_alone_and_sends_nothing(
    drawn: Drawn, plan: MemoryPlan
) -> None:
    engine = engine_of(drawn, plan, safety="send")
    with failing(drawn.model, no_memory(lambda _: False)) as asked:
        [outcome] = draw(engine, JOBS[:1])
    assert (reason(outcome), len(asked)) == ("out_of_memory", 4)
    [later] = draw(engine, JOBS[1:2])
    assert nearly_equal(pixels(later), drawn.pictures[1])


def test_a_picture_that_breaks_the_check_fails_alone_and_is_not_sent(drawn: Drawn, plan: MemoryPlan) -> None:
    calls = iter(range(1, 100))

    def check(_: int) -> None:
        if next(calls) in (1, 3):  # all together, then the second alone
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied (injected)")

    with failing(drawn.model, check):
        outcomes = draw(engine_of(drawn, plan, safety="send"), JOBS[:4])
    assert reason(outcomes[1]) == "internal"
    for index in (0, 2, 3):
        assert nearly_equal(pixels(outcomes[index]), drawn.pictures[index])


def test_numbers_that_are_not_finite_are_no_verdict(drawn: Drawn, plan: MemoryPlan) -> None:
    """diffusers takes them for a good picture."""
    checker = drawn.model.safety_checker
    assert checker is not None

    def spoil(_: object, __: object, embeddings: torch.Tensor) -> torch.Tensor:
        return embeddings.clone().index_fill_(0, torch.tensor([1]), torch.nan)

    hook = checker.module.visual_projection.register_forward_hook(spoil)
    outcomes = draw(engine_of(drawn, plan, safety="send"), JOBS[:3])
    hook.remove()
    assert reason(outcomes[1]) == "no_verdict"
    assert [one and one.flagged for one in safeties(outcomes)] == [drawn.verdicts[0], drawn.verdicts[2]]


def test_in_strict_mode_each_picture_is_checked_alone(drawn: Drawn, plan: MemoryPlan) -> None:
    with failing(drawn.model, lambda _: None) as asked:
        draw(engine_of(drawn, plan, strict=True), JOBS[:3])
    assert asked == [1, 1, 1]


def test_the_check_is_measured_and_planned(drawn: Drawn, model: Model) -> None:
    measured = measure_footprint(drawn.model, 64, 64, history_columns=9)
    assert measured.check_bytes > 3 * SIDE * SIDE * 4
    assert measure_footprint(model, 64, 64, history_columns=9).check_bytes == 0
    heavy = Footprint(1.0, 1.0, 0.0, check_bytes=1000.0)
    plan = MemoryPlan(10_000, heavy)
    assert heavy.picture_bytes(64) == 1000
    assert heavy.picture_bytes(5000) == 5000
    assert plan.decode_slice(64, live=10) == (10_000 - 10 * 64 * 2) // 1000
    assert plan.places(64) == (10_000 - 1000) // (64 * 2)


@pytest.mark.parametrize("size", [(64, 64), (512, 512), (768, 512)])
def test_a_blurred_picture_shows_its_colours_and_nothing_else(size: tuple[int, int]) -> None:
    """Stripes of a sixteenth of the picture are gone; a flat colour stays what it is."""
    width, height = size
    stripes = Image.new("RGB", size, "white")
    for left in range(0, width, width // 8):
        stripes.paste("black", (left, 0, left + width // 16, height))
    middle = blurred(stripes).crop((width // 4, height // 4, 3 * width // 4, 3 * height // 4))
    assert max(high - low for low, high in ImageStat.Stat(middle).extrema) <= 8
    red = Image.new("RGB", size, (200, 30, 30))
    assert blurred(red).tobytes() == red.tobytes()
