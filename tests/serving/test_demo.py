"""The demo, whole: what make demo runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pipeline.progress import Silent
from pipeline.serving.demo import QUESTIONS, Demo, Moment, Shot, run_demo
from pipeline.shapes.judge import judge
from pipeline.shapes.palette import COLOURS, SHAPES, Caption

ROOT = Path(__file__).parents[2]


@pytest.mark.torchserve
def test_eight_pictures_are_right_and_saved_with_their_timeline(tmp_path: Path) -> None:
    (tmp_path / "model_artifacts").mkdir()
    for name in ("shapes", "model-config.yaml"):
        (tmp_path / "model_artifacts" / name).symlink_to(ROOT / "model_artifacts" / name)
    done = run_demo(tmp_path, Silent())
    assert done.right, [shot for shot in done.shots if not shot.right]
    assert [shot.caption for shot in done.shots] == [caption for caption, _ in QUESTIONS]
    labels = [moment.label for moment in done.moments]
    assert labels[0] == "build model.mar"
    assert labels[-1] == "stop"
    assert len(labels) == 11
    with Image.open(done.sheet) as sheet:
        assert sheet.width > 4 * 64


def test_every_colour_and_shape_is_asked_for() -> None:
    assert {caption.foreground for caption, _ in QUESTIONS} == set(COLOURS)
    assert {caption.shape for caption, _ in QUESTIONS} == set(SHAPES)


def test_one_wrong_picture_is_enough_to_fail(tmp_path: Path) -> None:
    asked = Caption("red", "circle", "blue")
    right = Image.new("RGB", (64, 64), COLOURS["blue"])
    right.paste(COLOURS["red"], (16, 16, 48, 48))
    shot = Shot(asked, 1, right, judge(right))
    assert not shot.right  # a square is no circle
    assert not Demo((Moment("x", 0.0, 1.0),), (shot,), tmp_path).right
