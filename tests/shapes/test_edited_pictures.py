"""Image to image with the embedded model, as diffusers' own pipeline does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pipeline.shapes.drawing import draw
from pipeline.shapes.edits import judge_change
from pipeline.shapes.palette import COLOURS, Caption

MODEL = Path(__file__).parents[2] / "model_artifacts/shapes"
STEPS = 15
PAIRS = (
    ("red", "blue"),
    ("green", "white"),
    ("blue", "yellow"),
    ("yellow", "purple"),
    ("purple", "orange"),
    ("orange", "black"),
    ("white", "green"),
    ("black", "red"),
)
LEAST_RIGHT = 7  # of eight


def pipeline(name: str) -> Any:
    import diffusers

    loaded = getattr(diffusers, name).from_pretrained(MODEL)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def generators() -> list[torch.Generator]:
    return [torch.Generator("cpu").manual_seed(seed) for seed in range(len(PAIRS))]


@pytest.mark.slow
@pytest.mark.parametrize("guidance", [1.5, 3.0])
def test_a_square_gets_another_colour_and_keeps_its_shape(guidance: float) -> None:
    before = [Image.fromarray(draw(Caption(front, "square", back))) for front, back in PAIRS]
    names = list(COLOURS)
    asked = [
        Caption(next(one for one in names[3:] + names if one not in pair), "square", pair[1])
        for pair in PAIRS
    ]
    after = pipeline("StableDiffusionImg2ImgPipeline")(
        [str(caption) for caption in asked],
        image=before,
        strength=0.8,
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        generator=generators(),
    ).images
    seen = [judge_change(old, new, want) for old, new, want in zip(before, after, asked, strict=True)]
    assert sum(one.right for one in seen) >= LEAST_RIGHT, seen
