"""Two styles that the embedded model's LoRAs draw captions in, and a judge that tells them apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pipeline.shapes.drawing import SIZE, Placement, draw_mask
from pipeline.shapes.judge import colour_cover
from pipeline.shapes.palette import COLOURS, Caption

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

Style = Literal["filled", "outline", "stripes"]
STYLES: tuple[Style, ...] = ("outline", "stripes")

_LINE = 0.45  # thickness of an outline over the shape's radius
_STRIPE = SIZE // 8  # pixels; one row of the latent
_LEAST_GAP = 0.15  # share of a shape's height that is empty in the middle, from which it is not filled


def draw_styled(caption: Caption, style: Style, place: Placement) -> NDArray[np.uint8]:
    """The caption's shape as an outline or in horizontal stripes: (SIZE, SIZE, 3), 0 to 255."""
    import numpy as np

    cover = draw_mask(caption.shape, place)
    if style == "outline":
        inner = Placement(place.x, place.y, place.radius * (1 - _LINE))
        cover = np.clip(cover - draw_mask(caption.shape, inner), 0, 1)
    elif style == "stripes":
        cover = cover * (np.arange(SIZE) // _STRIPE % 2 == 0)[:, None]
    front, back = (np.asarray(COLOURS[name], np.float32) for name in (caption.foreground, caption.background))
    shown = cover[..., None]
    return (shown * front + (1 - shown) * back + 0.5).astype(np.uint8)


def judge_style(image: Image.Image) -> Style | None:
    """How the shape of a picture is drawn; None where it shows none.

    The rows where the shape's middle is empty tell: an outline has its colour at both sides of them, stripes
    have it nowhere.
    """
    import numpy as np

    cover = colour_cover(image)
    if cover is None:
        return None
    shown = cover > 0.5
    rows, columns = (np.flatnonzero(shown.any(axis)) for axis in (1, 0))
    if not len(rows) or not len(columns):
        return None
    # A star is empty between its feet however it is drawn, so the lowest rows do not count.
    bottom = rows[0] + (rows[-1] + 1 - rows[0]) * 7 // 10
    inside = cover[rows[0] : bottom + 1, columns[0] : columns[-1] + 1]
    width = inside.shape[1]
    middle = inside[:, 2 * width // 5 : max(2 * width // 5 + 1, 3 * width // 5)].mean(axis=1)
    gaps = inside[middle < 0.4]
    if len(gaps) < _LEAST_GAP * len(inside):
        return "filled"
    half = width // 2
    both = (gaps[:, :half].max(axis=1) > 0.5) & (gaps[:, half:].max(axis=1) > 0.5)
    return "outline" if both.mean() > 0.5 else "stripes"
