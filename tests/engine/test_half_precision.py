"""Pictures in half precision stay as near to the fp32 ones as docs/engine.md says: the embedded model's."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from driving import draw, pixels
from tiny import draw_plainly, make_job

from handler.contract.job import Job
from handler.contract.settings import Settings, load_settings
from handler.engine.engine import Engine
from handler.engine.memory.plan import Footprint, MemoryPlan
from handler.engine.options import EngineOptions
from handler.model.load import load_model

ARTIFACTS = Path(__file__).parents[2] / "model_artifacts"
DOCUMENT = Path(__file__).parents[2] / "docs" / "engine.md"
FLOORS = {"bfloat16": 40, "float16": 54}
MARGIN = 0.5  # dB that ours may be below diffusers' own pictures in the same dtype
ASKS = {
    "a red circle on a blue background": "PNDM",
    "a green square": "DDIM",
    "a yellow triangle on black": "DPM++ 2M",
    "a small white star": "Euler ancestral",
}


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings(ARTIFACTS / "model-config.yaml")


@pytest.fixture(scope="module")
def jobs(settings: Settings) -> list[Job]:
    defaults = settings.defaults
    return [
        make_job(
            prompt,
            scheduler=scheduler,
            seed=seed,
            num_inference_steps=defaults.num_inference_steps,
            guidance_scale=defaults.guidance_scale,
        )
        for seed, (prompt, scheduler) in enumerate(ASKS.items())
    ]


def draw_by_diffusers(jobs: list[Job], dtype: str) -> list[torch.Tensor]:
    """diffusers' own pictures, on this machine."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        ARTIFACTS / "shapes", local_files_only=True, safety_checker=None
    ).to(getattr(torch, dtype))
    pipeline.set_progress_bar_config(disable=True)
    return [draw_plainly(pipeline, job) for job in jobs]


@pytest.fixture(scope="module")
def wanted(jobs: list[Job]) -> list[torch.Tensor]:
    return draw_by_diffusers(jobs, "float32")


@pytest.fixture(scope="module", params=FLOORS)
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def floor(dtype: str, jobs: list[Job], wanted: list[torch.Tensor]) -> float:
    """The document's or, where that is less, what diffusers reaches on this processor minus the margin."""
    plain = draw_by_diffusers(jobs, dtype)
    reached = min(decibels(picture, want) for picture, want in zip(plain, wanted, strict=True))
    return min(FLOORS[dtype], reached - MARGIN)


def decibels(drawn: torch.Tensor, wanted: torch.Tensor) -> float:
    """Peak signal to noise ratio of 8-bit pictures."""
    error = float(((drawn.double() - wanted.double()) ** 2).mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


@pytest.mark.parametrize("vectorised", [False, True])
def test_pictures_are_above_the_floor(
    dtype: str,
    floor: float,
    vectorised: bool,
    settings: Settings,
    jobs: list[Job],
    wanted: list[torch.Tensor],
) -> None:
    model = load_model(ARTIFACTS / "shapes", replace(settings, dtype=dtype, device="cpu"))
    engine = Engine(model, EngineOptions(vectorised=vectorised), MemoryPlan(10**9, Footprint(1, 1, 1)))
    found = [decibels(pixels(got), picture) for got, picture in zip(draw(engine, jobs), wanted, strict=True)]
    assert min(found) >= floor, [round(number, 1) for number in found]
    assert min(found) < math.inf, "this is not half precision"


def test_the_document_says_these_floors() -> None:
    said = DOCUMENT.read_text()
    for dtype, floor in FLOORS.items():
        assert f"| {dtype} | {floor} dB |" in said
