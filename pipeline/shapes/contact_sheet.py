"""Many small pictures with their labels on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

_GAP = 6
_LABEL_HEIGHT = 14


def make_contact_sheet(
    pictures: Sequence[Image.Image], labels: Sequence[str] = (), columns: int = 8
) -> Image.Image:
    """Lay equally large pictures out in rows, each over its label where there are labels.

    Raises ValueError when the labels are neither none nor one for each picture.
    """
    from PIL import Image, ImageDraw

    if labels and len(labels) != len(pictures):
        raise ValueError(f"{len(labels)} labels for {len(pictures)} pictures")
    wide, high = pictures[0].size
    cell_wide, cell_high = wide + _GAP, high + _GAP + (_LABEL_HEIGHT if labels else 0)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * cell_wide + _GAP, rows * cell_high + _GAP), (128, 128, 128))
    pen = ImageDraw.Draw(sheet)
    for number, picture in enumerate(pictures):
        x = _GAP + number % columns * cell_wide
        y = _GAP + number // columns * cell_high
        sheet.paste(picture, (x, y))
        if labels:
            pen.text((x, y + high + 1), labels[number], fill=(255, 255, 255))
    return sheet
