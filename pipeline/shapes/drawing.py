"""Drawing the training pictures, and the ideal shapes that the judge lays over a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.shapes.palette import COLOURS, Caption

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIZE = 64
_OVERSAMPLING = 4
_STAR_NOTCH = 0.45  # inner radius of the star over its outer one


@dataclass(frozen=True)
class Placement:
    """Where a shape lies: centre and radius in pixels of a SIZE x SIZE picture."""

    x: float
    y: float
    radius: float


CENTRE = Placement(SIZE / 2, SIZE / 2, 19.0)


def _regular(x: float, y: float, radii: list[float], turn: float) -> list[tuple[float, float]]:
    step = 2 * math.pi / len(radii)
    return [
        (x + r * math.cos(turn + i * step), y + r * math.sin(turn + i * step)) for i, r in enumerate(radii)
    ]


def outline(shape: str, place: Placement) -> list[tuple[float, float]]:
    """Corners of a shape; all cover a like area at the same radius. Raises KeyError for an unknown shape."""
    x, y, r = place.x, place.y, place.radius
    up = -math.pi / 2
    corners = {
        "circle": lambda: _regular(x, y, [r * 0.95] * 64, 0.0),
        "square": lambda: _regular(x, y, [r * 1.2] * 4, math.pi / 4),
        "triangle": lambda: _regular(x, y + r * 0.25, [r * 1.25] * 3, up),
        "star": lambda: _regular(x, y, [r * 1.25, r * 1.25 * _STAR_NOTCH] * 5, up),
    }
    return corners[shape]()


def draw_mask(shape: str, place: Placement, size: int = SIZE) -> NDArray[np.float32]:
    """How much of each pixel the shape covers: (size, size), 0 to 1."""
    import numpy as np
    from PIL import Image, ImageDraw

    scale = size / SIZE * _OVERSAMPLING
    canvas = Image.new("L", (size * _OVERSAMPLING, size * _OVERSAMPLING))
    ImageDraw.Draw(canvas).polygon([(x * scale, y * scale) for x, y in outline(shape, place)], fill=255)
    cover: NDArray[np.float32] = np.asarray(canvas.reduce(_OVERSAMPLING), np.float32) / np.float32(255)
    return cover


def draw(caption: Caption, place: Placement = CENTRE, size: int = SIZE) -> NDArray[np.uint8]:
    """The picture of a caption: (size, size, 3), 0 to 255."""
    import numpy as np

    cover = draw_mask(caption.shape, place, size)[..., None]
    front = np.asarray(COLOURS[caption.foreground], np.float32)
    back = np.asarray(COLOURS[caption.background], np.float32)
    return (cover * front + (1 - cover) * back + 0.5).astype(np.uint8)


def random_placement(random: np.random.Generator) -> Placement:
    """A placement as in training: some pixels off the centre, radius 16 to 22 pixels."""
    x, y = SIZE / 2 + random.uniform(-5, 5, 2)
    return Placement(float(x), float(y), float(random.uniform(16, 22)))
