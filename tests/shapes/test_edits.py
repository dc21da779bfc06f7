"""The judges of changed and of painted pictures: right on drawn ones, and red on every way to be wrong."""

from __future__ import annotations

import pytest
from PIL import Image

from pipeline.shapes.drawing import CENTRE, Placement, draw
from pipeline.shapes.edits import judge_change, judge_painting
from pipeline.shapes.palette import Caption

RIGHT_HALF = Placement(48, 30, 11)
RED = Caption("red", "square", "blue")
GREEN = Caption("green", "square", "blue")
STAR = Caption("yellow", "star", "blue")
PLAIN = Image.new("RGB", (64, 64), (50, 90, 220))


def picture(caption: Caption, place: Placement = CENTRE) -> Image.Image:
    return Image.fromarray(draw(caption, place))


def right_half() -> Image.Image:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (32, 0, 64, 64))
    return mask


def test_the_asked_colour_at_the_same_place_is_a_right_change() -> None:
    seen = judge_change(picture(RED), picture(GREEN, Placement(33, 31, 20)), GREEN)
    assert seen.right
    assert seen.kept > 0.8


@pytest.mark.parametrize(
    "after",
    [
        picture(RED),
        picture(Caption("green", "circle", "blue")),
        picture(Caption("green", "square", "white")),
        picture(GREEN, RIGHT_HALF),
        PLAIN,
    ],
    ids=["the old colour", "another shape", "another background", "another place", "no shape"],
)
def test_a_wrong_change_is_seen(after: Image.Image) -> None:
    assert not judge_change(picture(RED), after, GREEN).right


def test_the_asked_shape_inside_the_mask_is_a_right_painting() -> None:
    seen = judge_painting(PLAIN, picture(STAR, RIGHT_HALF), right_half(), STAR)
    assert seen.right
    assert (seen.inside, seen.change) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (PLAIN, picture(STAR)),
        (PLAIN, picture(STAR, Placement(16, 30, 11))),
        (PLAIN, picture(Caption("yellow", "circle", "blue"), RIGHT_HALF)),
        (PLAIN, picture(Caption("red", "star", "blue"), RIGHT_HALF)),
        (Image.new("RGB", (64, 64), (245, 245, 245)), picture(STAR, RIGHT_HALF)),
        (PLAIN, PLAIN),
    ],
    ids=["across", "outside", "another shape", "another colour", "another rest", "nothing"],
)
def test_a_wrong_painting_is_seen(before: Image.Image, after: Image.Image) -> None:
    assert not judge_painting(before, after, right_half(), STAR).right
