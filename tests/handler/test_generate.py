"""Pictures are plain diffusers' pictures, alone and in company, and one failure costs nobody else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy
import pytest
import torch
from diffusers import StableDiffusionPipeline

from handler.generate import Generator
from handler.job import Failure, Job, Outcome, Picture
from handler.model import Model, load_model
from handler.schedulers import SCHEDULERS
from handler.settings import Settings


@pytest.fixture(scope="module")
def model(archive_root: Path) -> Model:
    return load_model(archive_root / "model", Settings())


@pytest.fixture(scope="module")
def plain(archive_root: Path) -> Any:
    pipeline = StableDiffusionPipeline.from_pretrained(archive_root / "model", local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def make_job(**changes: Any) -> Job:
    fields: dict[str, Any] = {
        "prompt": "a cat",
        "negative_prompt": "",
        "num_inference_steps": 4,
        "guidance_scale": 4.0,
        "seed": 5,
        "width": 64,
        "height": 64,
        "scheduler": "PNDM",
        "output_format": "png",
        "quality": 90,
        "response": "image",
    }
    return Job(**{**fields, **changes})


def draw_plainly(pipeline: Any, jobs: Sequence[Job]) -> list[Any]:
    """What a user of diffusers would write for these jobs, which share all but prompts and seeds."""
    first = jobs[0]
    kind = getattr(diffusers, SCHEDULERS[first.scheduler].class_name)
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
    images = pipeline(
        [job.prompt for job in jobs],
        negative_prompt=[job.negative_prompt for job in jobs],
        num_inference_steps=first.num_inference_steps,
        guidance_scale=first.guidance_scale,
        width=first.width,
        height=first.height,
        generator=[torch.Generator("cpu").manual_seed(job.seed) for job in jobs],
    ).images
    return [numpy.asarray(image) for image in images]


def pixels(outcome: Outcome) -> Any:
    assert isinstance(outcome, Picture), outcome
    return numpy.asarray(outcome.image)


@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize("scheduler", list(SCHEDULERS))
def test_a_seed_gives_plain_diffusers_picture(model: Model, plain: Any, scheduler: str, steps: int) -> None:
    job = make_job(scheduler=scheduler, num_inference_steps=steps, negative_prompt="a dog", seed=2**63 + 1)
    (outcome,) = Generator(model, 8).generate([job])
    assert numpy.array_equal(pixels(outcome), draw_plainly(plain, [job])[0])


@pytest.mark.parametrize(
    ("width", "height", "guidance_scale"), [(64, 64, 0.0), (72, 40, 1.0), (32, 128, 1.1), (128, 64, 7.5)]
)
def test_sizes_and_guidance_agree(
    model: Model, plain: Any, width: int, height: int, guidance_scale: float
) -> None:
    job = make_job(width=width, height=height, guidance_scale=guidance_scale, num_inference_steps=2)
    (outcome,) = Generator(model, 8).generate([job])
    assert pixels(outcome).shape == (height, width, 3)
    assert numpy.array_equal(pixels(outcome), draw_plainly(plain, [job])[0])


@pytest.mark.parametrize("scheduler", ["PNDM", "Euler ancestral", "LCM"])
def test_equal_jobs_share_one_call(model: Model, plain: Any, scheduler: str) -> None:
    jobs = [make_job(prompt=f"cat {number}", seed=number, scheduler=scheduler) for number in range(3)]
    drawn = [pixels(outcome) for outcome in Generator(model, 8).generate(jobs)]
    assert numpy.array_equal(drawn, draw_plainly(plain, jobs))


def test_mixed_jobs_come_back_in_order_with_their_own_pictures(model: Model, plain: Any) -> None:
    changes: list[dict[str, Any]] = [
        {"num_inference_steps": 2},
        {"scheduler": "DDIM"},
        {"width": 32},
        {"num_inference_steps": 2, "guidance_scale": 1.0},
        {},
    ]
    jobs = [make_job(prompt=f"cat {number}", seed=number, **change) for number, change in enumerate(changes)]
    for job, outcome in zip(jobs, Generator(model, 8).generate(jobs), strict=True):
        assert numpy.array_equal(pixels(outcome), draw_plainly(plain, [job])[0])


def test_timings_add_up_from_stages(model: Model) -> None:
    (outcome,) = Generator(model, 8).generate([make_job()])
    assert isinstance(outcome, Picture)
    assert outcome.seconds.keys() == {"queue", "denoise", "decode"}
    assert all(seconds >= 0 for seconds in outcome.seconds.values())


def test_no_jobs_are_no_outcomes(model: Model) -> None:
    assert Generator(model, 8).generate([]) == []


class SmallMemory(Generator):
    """A generator on a device that holds ``room`` pictures."""

    room = 2

    def _draw(self, jobs: Sequence[Job], started: float) -> list[Outcome]:
        if len(jobs) > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return super()._draw(jobs, started)


def test_out_of_memory_draws_in_smaller_calls(model: Model) -> None:
    jobs = [make_job(seed=number) for number in range(5)]
    outcomes = SmallMemory(model, 8).generate(jobs)
    alone = [Generator(model, 1).generate([job])[0] for job in jobs]
    for outcome, own in zip(outcomes, alone, strict=True):
        assert numpy.abs(pixels(outcome).astype(int) - pixels(own)).max() <= 1


def test_a_picture_that_never_fits_is_a_failure(model: Model) -> None:
    generator = SmallMemory(model, 8)
    generator.room = 0
    (outcome,) = generator.generate([make_job()])
    assert isinstance(outcome, Failure)
    assert (outcome.status, outcome.code) == (503, "out_of_memory")


def test_a_failed_call_fails_its_group_only(model: Model) -> None:
    # diffusers refuses widths that are no multiple of 8, which requests cannot ask for.
    broken, sound = Generator(model, 8).generate([make_job(width=60), make_job()])
    assert isinstance(broken, Failure)
    assert broken.status == 500
    assert isinstance(sound, Picture)
