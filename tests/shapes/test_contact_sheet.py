"""The sheet holds every picture at its place, whole."""

from __future__ import annotations

import pytest
from PIL import Image

from pipeline.shapes.contact_sheet import make_contact_sheet


def test_pictures_lie_in_rows_in_their_order() -> None:
    pictures = [Image.new("RGB", (10, 8), (shade, 0, 0)) for shade in (10, 20, 30)]
    sheet = make_contact_sheet(pictures, columns=2)
    assert sheet.size == (2 * 16 + 6, 2 * 14 + 6)
    assert [sheet.getpixel(at) for at in ((6, 6), (31, 13), (6, 20))] == [(10, 0, 0), (20, 0, 0), (30, 0, 0)]


def test_labels_make_room_below() -> None:
    picture = Image.new("RGB", (40, 8))
    plain, labelled = make_contact_sheet([picture]), make_contact_sheet([picture], ["red"])
    assert labelled.height > plain.height
    below = labelled.crop((6, 14, 46, labelled.height - 6))
    _, brightest = below.convert("L").getextrema()
    assert isinstance(brightest, int)
    assert brightest > 200  # the pen is white on grey; letters are smoothed


def test_labels_that_do_not_fit_the_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="1 labels for 2 pictures"):
        make_contact_sheet([Image.new("RGB", (8, 8))] * 2, ["red"])
