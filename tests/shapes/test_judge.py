"""The judge names all 224 drawn pictures, also with noise, and refuses wrong ones."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipeline.shapes.drawing import CENTRE, draw, random_placement
from pipeline.shapes.judge import Verdict, judge
from pipeline.shapes.palette import SHAPES, Caption, all_captions, parse_caption


def noisy(pixels: np.ndarray, amount: float, random: np.random.Generator) -> Image.Image:
    moved = pixels + random.normal(0, amount, pixels.shape)
    return Image.fromarray(moved.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(("noise", "misses"), [(0, 0), (8, 0), (16, 2)])
def test_names_every_drawn_caption(noise: float, misses: int) -> None:
    random = np.random.default_rng(7)
    wrong = []
    for caption in all_captions():
        verdict = judge(noisy(draw(caption, random_placement(random)), noise, random))
        if not verdict.matches(caption):
            wrong.append((str(caption), verdict))
    assert len(wrong) <= misses, wrong


@pytest.mark.parametrize("size", [72, 96, 128])
def test_judges_other_sizes(size: int) -> None:
    caption = Caption("yellow", "star", "purple")
    assert judge(Image.fromarray(draw(caption, CENTRE, size))).matches(caption)


def test_the_same_picture_gets_the_same_verdict() -> None:
    picture = Image.fromarray(draw(Caption("red", "circle", "white")))
    assert judge(picture) == judge(picture)


def test_a_plain_picture_shows_no_shape() -> None:
    assert judge(Image.new("RGB", (64, 64), (220, 40, 40))) == Verdict(None, "red", None, 0.0)


def test_static_shows_no_shape() -> None:
    static = np.random.default_rng(3).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert judge(Image.fromarray(static)).shape is None


def test_two_halves_are_no_shape() -> None:
    pixels = np.full((64, 64, 3), 245, np.uint8)
    pixels[:, 40:] = 25
    assert judge(Image.fromarray(pixels)).shape is None


def test_a_wrong_shape_does_not_match() -> None:
    for drawn in SHAPES:
        verdict = judge(Image.fromarray(draw(Caption("blue", drawn, "orange"))))
        matching = [asked for asked in SHAPES if verdict.matches(Caption("blue", asked, "orange"))]
        assert matching == [drawn]


def test_swapped_colours_do_not_match() -> None:
    verdict = judge(Image.fromarray(draw(Caption("blue", "circle", "orange"))))
    assert not verdict.matches(Caption("orange", "circle", "blue"))


def test_all_captions_are_224_and_parse_back() -> None:
    captions = all_captions()
    assert len(set(captions)) == 224
    assert [parse_caption(str(caption)) for caption in captions] == captions


@pytest.mark.parametrize(
    "prompt",
    ["", "a red circle", "a pink circle on a blue background", "a red hexagon on a blue background", "red"],
)
def test_other_prompts_are_no_captions(prompt: str) -> None:
    assert parse_caption(prompt) is None


def test_a_caption_is_read_whatever_its_case_and_spaces() -> None:
    assert parse_caption(" A  Red circle on an ORANGE background ") == Caption("red", "circle", "orange")
