"""Naming what a picture shows: colours by masks, the shape by overlap with the ideal ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from pipeline.shapes.drawing import SIZE, Placement, draw_mask
from pipeline.shapes.palette import COLOURS, SHAPES, Caption

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    Pixels = NDArray[np.float32]

LEAST_OVERLAP = 0.6  # under this the picture shows none of the shapes
_LEAST_PIXELS = 80  # a foreground colour with fewer pixels is an edge or a blot
_BORDER = 4  # pixels along the rim that are background in every training picture
_FRAME = 32  # room around a template, so that it can be moved by slicing


@dataclass(frozen=True)
class Verdict:
    """What a picture shows; ``overlap`` is the best shape's intersection over union, 0 to 1."""

    foreground: str | None
    background: str
    shape: str | None
    overlap: float

    def matches(self, caption: Caption) -> bool:
        """Whether the picture shows what the caption asks for, in foreground, shape and background."""
        return Caption(self.foreground or "", self.shape or "", self.background) == caption


def judge(image: Image.Image) -> Verdict:
    """Look at an RGB picture of any size."""
    pixels = _pixels(image)
    labels = _nearest_colours(pixels)
    foreground, background = _two_colours(labels)
    names = list(COLOURS)
    if foreground is None:
        return Verdict(None, names[background], None, 0.0)
    cover = _cover(pixels, labels, foreground, background)
    overlaps = {shape: _best_overlap(cover, shape) for shape in SHAPES}
    shape = max(overlaps, key=lambda name: overlaps[name])
    named = shape if overlaps[shape] >= LEAST_OVERLAP else None
    return Verdict(names[foreground], names[background], named, overlaps[shape])


def colour_cover(image: Image.Image) -> Pixels | None:
    """How much of each pixel has the foreground's colour, 0 to 1: (SIZE, SIZE); None without a foreground."""
    pixels = _pixels(image)
    labels = _nearest_colours(pixels)
    foreground, background = _two_colours(labels)
    return None if foreground is None else _cover(pixels, labels, foreground, background)


def _pixels(image: Image.Image) -> Pixels:
    import numpy as np

    return np.asarray(image.convert("RGB").resize((SIZE, SIZE)), np.float32)


def _two_colours(labels: NDArray[np.intp]) -> tuple[int | None, int]:
    """Numbers of the foreground's colour, where there is one, and of the background's."""
    import numpy as np

    rim = np.ones((SIZE, SIZE), bool)
    rim[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
    background = int(np.bincount(labels[rim], minlength=len(COLOURS)).argmax())
    counts = np.bincount(labels[~rim], minlength=len(COLOURS))
    counts[background] = 0
    foreground = int(counts.argmax())
    return (None if counts[foreground] < _LEAST_PIXELS else foreground), background


def _nearest_colours(pixels: Pixels) -> NDArray[np.intp]:
    import numpy as np

    palette = np.asarray(list(COLOURS.values()), np.float32)
    nearest: NDArray[np.intp] = np.square(pixels[:, :, None] - palette).sum(-1).argmin(-1)
    return nearest


def _cover(pixels: Pixels, labels: NDArray[np.intp], foreground: int, background: int) -> Pixels:
    """How much of each pixel is foreground, 0 to 1: its place between the two colours as drawn."""
    import numpy as np

    back = np.median(pixels[labels == background], axis=0)
    line = np.median(pixels[labels == foreground], axis=0) - back
    along = (pixels - back) @ line / (line @ line)
    cover: Pixels = np.clip(
        2 * along - 0.5, 0, 1
    )  # steeper than the edge, so that noise on plain areas is cut off
    return cover


def _best_overlap(cover: Pixels, shape: str) -> float:
    """The best soft intersection over union, over sizes and places near those of the mask."""
    import numpy as np

    area = float(cover.sum())
    row, column = (np.indices(cover.shape) * cover).sum((1, 2)) / area
    fitting = SIZE / 4 * (area / _template(shape, SIZE // 4).mask.sum()) ** 0.5
    best = 0.0
    for radius in {min(SIZE // 2, max(4, round(fitting) + change)) for change in (-1, 0, 1)}:
        template = _template(shape, radius)
        top, left = (round(_FRAME + at - on) for at, on in ((template.row, row), (template.column, column)))
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                ideal = template.window(top + down, left + right)
                best = max(best, float(np.minimum(cover, ideal).sum() / np.maximum(cover, ideal).sum()))
    return best


@dataclass(frozen=True)
class _Template:
    """An ideal shape, drawn in the middle, with its centre of mass and a wide empty frame."""

    mask: Pixels
    row: float
    column: float

    def window(self, top: int, left: int) -> Pixels:
        top, left = (min(2 * _FRAME, max(0, start)) for start in (top, left))
        return self.mask[top : top + SIZE, left : left + SIZE]


@lru_cache(maxsize=256)
def _template(shape: str, radius: int) -> _Template:
    import numpy as np

    mask = draw_mask(shape, Placement(SIZE / 2, SIZE / 2, radius))
    row, column = (np.indices(mask.shape) * mask).sum((1, 2)) / mask.sum()
    return _Template(np.pad(mask, _FRAME), float(row), float(column))
