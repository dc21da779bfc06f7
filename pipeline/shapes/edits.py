"""Judging a changed or painted picture against the one it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.shapes.drawing import SIZE
from pipeline.shapes.judge import colour_cover, judge

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from pipeline.shapes.palette import Caption

LEAST_KEPT = 0.6  # overlap of the old and the new shape, from which it has kept its place
LEAST_INSIDE = 0.95  # share of the new shape that lies where painting was allowed
MOST_CHANGE = 16.0  # mean change of the rest, of 255; the autoencoder alone changes about 3


@dataclass(frozen=True)
class Changed:
    """``asked``: the picture shows its caption. ``kept``: overlap of both shapes over their union, 0 to 1."""

    asked: bool
    kept: float

    @property
    def right(self) -> bool:
        return self.asked and self.kept >= LEAST_KEPT


@dataclass(frozen=True)
class Painted:
    """``inside``: the shape's share in the mask, 0 to 1; ``change``: mean of the rest, 0 to 255."""

    asked: bool
    inside: float
    change: float

    @property
    def right(self) -> bool:
        return self.asked and self.inside >= LEAST_INSIDE and self.change <= MOST_CHANGE


def judge_change(before: Image.Image, after: Image.Image, caption: Caption) -> Changed:
    """Whether image to image drew ``caption`` where the shape of ``before`` was."""
    import numpy as np

    old, new = colour_cover(before), colour_cover(after)
    if old is None or new is None:
        return Changed(asked=False, kept=0.0)
    kept = float(np.minimum(old, new).sum() / np.maximum(old, new).sum())
    return Changed(judge(after).matches(caption), kept)


def judge_painting(before: Image.Image, after: Image.Image, mask: Image.Image, caption: Caption) -> Painted:
    """Whether inpainting drew ``caption`` in the white part of ``mask`` and left the rest as it was."""
    import numpy as np

    painted = np.asarray(mask.convert("L").resize((SIZE, SIZE))) > 127
    moved = np.abs(_pixels(after) - _pixels(before)).mean(axis=-1)[~painted]
    cover = colour_cover(after)
    inside = 0.0 if cover is None else float(cover[painted].sum() / cover.sum())
    return Painted(judge(after).matches(caption), inside, float(moved.mean()) if moved.size else 0.0)


def _pixels(image: Image.Image) -> NDArray[np.float32]:
    import numpy as np

    return np.asarray(image.convert("RGB").resize((SIZE, SIZE)), np.float32)
