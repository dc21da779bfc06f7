"""Receipts: what they hold, what they never hold, and the metadata of picture files."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json

import pytest
from PIL import Image

from handler.contract.encode import encode
from handler.contract.job import Job, LoraWeight, Picture, SourcePicture
from handler.contract.limits import Defaults
from handler.contract.picture_metadata import (
    EXIF_IFD,
    MOST_JPEG_CHARACTERS,
    UNICODE,
    USER_COMMENT,
    origin_in,
    parameters_text,
)
from handler.contract.receipt import make_receipt, origin, pixels_digest, settings_of

JOB = Job(prompt='a "cat", naïve ☃', seed=2**60, **dataclasses.asdict(Defaults()))
PICTURE = Picture(Image.effect_noise((16, 8), 50).convert("RGB"), {"queue": 0.5, "denoise": 1.0})
DESCRIPTION = {
    "versions": {"marquee": "1", "torch": "2"},
    "weights_digest": "ab" * 32,
    "archive_digest": "cd" * 32,
    "device": "cpu",
    "device_name": "a processor",
    "dtype": "float32",
    "threads": 2,
    "engine": {"name": "cpu eager", "strict": True},
    "loras": {"outline": {"sha256": "ef" * 32, "default_weight": 1.0}},
}


def text_of(file: bytes) -> str:
    image = Image.open(io.BytesIO(file))
    if image.format == "PNG":
        return str(image.info["parameters"])
    comment = image.getexif().get_ifd(EXIF_IFD)[USER_COMMENT]
    assert comment.startswith(UNICODE)
    return str(comment[len(UNICODE) :].decode("utf-16-be"))


def test_a_receipt_tells_all_that_a_picture_depends_on() -> None:
    receipt = make_receipt(JOB, PICTURE, DESCRIPTION, b"file", 0.25)
    assert receipt["file_sha256"] == hashlib.sha256(b"file").hexdigest()
    assert receipt["timings"] == {"queue": 0.5, "denoise": 1.0, "encode": 0.25}
    assert receipt["seed"] == str(2**60)
    assert (receipt["mode"], receipt["family"]) == ("strict", "text_to_image")
    assert receipt["device"]["profile"] == "cpu eager"
    assert (receipt["weights_digest"], receipt["archive_digest"]) == ("ab" * 32, "cd" * 32)
    assert receipt["settings"]["scheduler"] == "PNDM"
    json.dumps(receipt)


def test_a_picture_that_came_in_is_told_by_its_digest_alone() -> None:
    source = SourcePicture(Image.new("RGB", (8, 8), "red"), "12" * 32)
    job = dataclasses.replace(JOB, image=source, strength=0.5, loras=(LoraWeight("outline", 0.7),))
    receipt = make_receipt(job, PICTURE, DESCRIPTION, b"", 0.0)
    assert receipt["inputs"] == {"image": {"sha256": "12" * 32}}
    assert receipt["family"] == "image_to_image"
    assert receipt["settings"]["strength"] == 0.5
    assert receipt["loras"] == [{"name": "outline", "weight": 0.7, "sha256": "ef" * 32}]
    assert "image" not in receipt["settings"]
    json.dumps(receipt)


def test_a_strength_of_one_is_told_where_a_picture_is_changed() -> None:
    source = SourcePicture(Image.new("RGB", (8, 8)), "")
    assert settings_of(dataclasses.replace(JOB, image=source))["strength"] == 1.0
    assert "strength" not in settings_of(JOB)


def test_pictures_of_another_shape_or_pixel_have_another_digest() -> None:
    wide, tall = Image.new("RGB", (4, 2)), Image.new("RGB", (2, 4))
    changed = wide.copy()
    changed.putpixel((3, 1), (0, 0, 1))
    assert len({pixels_digest(image) for image in (wide, tall, changed)}) == 3
    assert pixels_digest(wide) == pixels_digest(wide.copy())


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_a_file_carries_settings_that_other_programs_read(output_format: str) -> None:
    made = origin(JOB, PICTURE, DESCRIPTION)
    text = text_of(encode(PICTURE.image, output_format, 90, parameters_text(made)))
    prompt, line = text.split("\n")
    assert prompt == JOB.prompt
    assert line.startswith(
        "Steps: 30, Sampler: PNDM, CFG scale: 7.5, Seed: 1152921504606846976, Size: 512x512"
    )
    assert origin_in(text) == made


def test_the_metadata_of_a_picture_drawn_twice_is_the_same() -> None:
    slower = dataclasses.replace(PICTURE, seconds={"queue": 9.0})
    files = [
        encode(one.image, "png", 90, parameters_text(origin(JOB, one, DESCRIPTION)))
        for one in (PICTURE, slower)
    ]
    assert files[0] == files[1]


def test_without_metadata_a_file_carries_no_text() -> None:
    image = Image.open(io.BytesIO(encode(PICTURE.image, "png", 90)))
    assert image.info == {}


@pytest.mark.parametrize("character", ["a", '"', "\\", "\u0001", "\n", "☃", "\U0001f600"])
def test_the_longest_texts_fit_into_a_jpeg(character: str) -> None:
    job = dataclasses.replace(JOB, prompt=character * MOST_JPEG_CHARACTERS)
    text = parameters_text(origin(job, PICTURE, DESCRIPTION))
    assert origin_in(text_of(encode(PICTURE.image, "jpeg", 90, text))) == origin(job, PICTURE, DESCRIPTION)
