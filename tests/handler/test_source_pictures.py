"""Pictures that come in as base64: what is taken, what is refused by name, and what hostile ones cost."""

from __future__ import annotations

import base64
import io
import random
import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hostile_pictures import animated, chunk
from PIL import Image, ImageOps
from sent_pictures import coded, file_of

from handler.contract.job import SourcePicture
from handler.contract.limits import Limits
from handler.contract.problem import FieldError, Problem, Refusal, error_body
from handler.contract.source_picture import Picture64, PixelBudget

LIMITS = Limits(max_image_bytes=200_000, max_image_pixels=128 * 128)
FORMATS = ("png", "jpeg", "webp")


def read(value: object, mode: str = "RGB") -> Image.Image:
    picture = Picture64(mode, LIMITS, PixelBudget(LIMITS)).read("image", value)
    assert isinstance(picture, SourcePicture)
    assert (picture.image.mode, picture.image.info) == (mode, {})
    return picture.image


def refusal(value: object) -> str:
    with pytest.raises(FieldError) as caught:
        read(value)
    return str(caught.value)


def gradient(mode: str = "RGB") -> Image.Image:
    return Image.linear_gradient("L").resize((24, 16)).convert(mode)


@pytest.mark.parametrize("format_name", FORMATS)
def test_the_pixels_are_those_that_pillow_reads(format_name: str) -> None:
    data = file_of(gradient(), format_name)
    plain = Image.open(io.BytesIO(data)).convert("RGB")
    safe = base64.urlsafe_b64encode(data).decode().rstrip("=")
    for text in (
        coded(data),
        safe,
        base64.encodebytes(data).decode(),
        f"data:image/{format_name};base64,{safe}",
    ):
        assert read(text).tobytes() == plain.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", FORMATS)
def test_it_is_turned_upright(format_name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file_of(gradient(), format_name, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert read(coded(data)).tobytes() == upright.convert("RGB").tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "I;16"])
def test_every_kind_of_png_becomes_rgb_and_grey(mode: str) -> None:
    image = Image.new("I;16", (8, 8), 0x8000) if mode == "I;16" else gradient(mode)
    data = coded(file_of(image, "png"))
    assert (read(data).mode, read(data, "L").mode) == ("RGB", "L")
    if mode == "I;16":
        assert read(data).getpixel((0, 0)) == (128, 128, 128)


def test_what_is_transparent_becomes_white() -> None:
    assert read(coded(file_of(Image.new("RGBA", (8, 8), (9, 0, 0, 0)), "png"))).getpixel((0, 0)) == (255,) * 3


PNG = file_of(gradient(), "png")
JPEG = file_of(gradient(), "jpeg")


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (5, "no text"),
        ("", "empty"),
        ("%%%%", "no base64"),
        ("é", "no base64"),
        ("https://example.com/secret.png", "an address"),
        (coded(file_of(gradient(), "gif")), "gif"),
        (coded(file_of(gradient(), "bmp")), "bmp"),
        (coded(file_of(gradient(), "tiff")), "tiff"),
        (coded(b"<svg></svg>"), "svg"),
        (coded(b"\x80\x04K\x01."), "pickle"),
        (coded(b"hello there"), "text"),
        (coded(animated("png")), "animated png"),
        (coded(animated("webp")), "animated webp"),
        (coded(PNG[:-20]), "cut off"),
        (coded(JPEG[:-20]), "cut off"),
        (coded(bytes(PNG[:8]) + bytes(300_000)), "300008 bytes"),
        (coded(file_of(Image.new("1", (5000, 5000)), "png")), "25000000 pixels"),
        (f"data:image/png;base64,{coded(JPEG)}", "a jpeg picture in a data: URL that says image/png"),
        (
            coded(JPEG[:2] + JPEG[JPEG.index(b"\xff\xdb") :][:-2] + b"\xff\xda\0\2" * 99 + b"\xff\xd9"),
            "scans",
        ),
    ],
)
def test_what_is_refused_is_named_and_not_repeated(value: object, named: str) -> None:
    message = refusal(value)
    assert named in message
    assert "secret" not in message
    assert str(value)[:20] not in message or not value or value == 5


def test_texts_that_unpack_to_gigabytes_are_not_unpacked() -> None:
    bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(60_000_000), 9))
    text = coded(PNG[:33] + bomb + PNG[33:])
    tracemalloc.start()
    image = read(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert image.tobytes() == gradient().tobytes()
    assert peak < 2_000_000


def test_the_pictures_of_a_request_have_a_number_of_pixels_together() -> None:
    text = coded(file_of(Image.new("L", (128, 128)), "png"))
    kind = Picture64("RGB", LIMITS, PixelBudget(LIMITS))
    for _ in range(2):
        kind.read("image", text)
    with pytest.raises(FieldError, match="32768 pixels together"):
        kind.read("image", text)


def test_damaged_files_are_pictures_or_refusals_and_cost_little() -> None:
    chance = random.Random(0)
    tracemalloc.start()
    for number in range(600):
        data = bytearray(file_of(gradient(chance.choice(["L", "RGB"])), FORMATS[number % 3]))
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if number % 4 == 0:
            del data[chance.randrange(len(data)) :]
        with suppress(FieldError):
            read(coded(bytes(data)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize("value", [coded(PNG * 3), f"data:image/png;base64,{coded(PNG)}"])
def test_no_answer_repeats_a_picture(value: str) -> None:
    for field in ("image", value):
        answer = error_body(Refusal(400, "a", "b", (Problem(0, field, value, "", ""),)))
        assert answer["error"]["problems"][0]["value"] == f"<base64, {len(value)} characters>"
        assert coded(PNG)[:12] not in str(answer)
