"""Image to image, inpainting and the end of guidance: what diffusers' own pipelines draw."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusionPipeline
from driving import draw, pixels
from tiny import draw_plainly, make_job, mask_picture, source_picture

from handler.contract.job import Job
from handler.contract.schedulers import SCHEDULERS
from handler.engine.engine import Engine
from handler.engine.memory.plan import MemoryPlan
from handler.engine.options import EngineOptions
from handler.model.model import Model


def changing(strength: float, **changes: object) -> Job:
    """Image to image."""
    return make_job(
        "a cat", image=source_picture(), strength=strength, num_inference_steps=15, seed=3, **changes
    )


def inpainting(strength: float, **changes: object) -> Job:
    return changing(strength, mask_image=mask_picture(), **changes)


@pytest.mark.parametrize("strength", [0.5, 0.8, 1.0])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_image_to_image_alone_is_the_plain_pipeline_to_the_bit(
    scheduler: str, strength: float, pipeline: StableDiffusionPipeline, model: Model, plan: MemoryPlan
) -> None:
    job = changing(strength, scheduler=scheduler)
    [outcome] = draw(Engine(model, EngineOptions(), plan), [job])
    assert torch.equal(pixels(outcome), draw_plainly(pipeline, job))
