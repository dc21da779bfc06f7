"""What a hostile or careless client sends as a picture: hundreds of values, generated, each under a name."""

from __future__ import annotations

import base64
import random
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import Image
from sent_pictures import coded, file_of, slope

Named = tuple[str, Any]
FORMATS = ("png", "jpeg", "webp")
FILES = {name: file_of(slope(32, 32), name) for name in FORMATS}
PNG, JPEG, WEBP = FILES.values()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def animated(format_name: str) -> bytes:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    return file_of(frames[0], format_name, save_all=True, append_images=frames[1:], duration=50)


def refused_pictures() -> Iterator[Named]:
    """Values that no reader takes."""
    yield from _wrong_values()
    yield from _wrong_texts()
    yield from _wrong_files()
    yield from _cut_off()
    yield from _sizes()
    yield from _bombs()


def damaged_pictures(count: int) -> Iterator[Named]:
    """Files with some bytes changed: pictures or not, as it comes."""
    chance = random.Random(0)
    for number in range(count):
        data = bytearray(FILES[FORMATS[number % 3]])
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        yield f"damaged {number}", coded(bytes(data))


def odd_pictures() -> Iterator[Named]:
    """Unusual files that are pictures all the same, 32 pixels wide and high."""
    for format_name in FORMATS:
        for orientation in (0, 1, 3, 6, 8, 9, 65535):
            exif = Image.Exif()
            exif[0x0112] = orientation
            yield f"{format_name} turned {orientation}", coded(file_of(slope(32, 32), format_name, exif=exif))
    for mode in ("1", "L", "P", "LA", "RGBA"):
        yield f"png of mode {mode}", coded(file_of(slope(32, 32).convert(mode), "png"))
    yield "png of 16 bits", coded(file_of(Image.new("I;16", (32, 32), 0x8000), "png"))
    for mode in ("L", "CMYK"):
        yield f"jpeg of mode {mode}", coded(file_of(slope(32, 32).convert(mode), "jpeg"))
    yield "progressive jpeg", coded(file_of(slope(32, 32), "jpeg", progressive=True))
    yield "transparent webp", coded(file_of(Image.new("RGBA", (32, 32), (9, 0, 0, 0)), "webp"))
    for name in (b"zTXt", b"iCCP"):
        bomb = chunk(name, b"a\0\0" + zlib.compress(bytes(30_000_000), 9))
        yield f"png whose {name.decode()} unpacks to 30 MB", coded(PNG[:33] + bomb + PNG[33:])


def _wrong_values() -> Iterator[Named]:
    for value in (0, 5, -1.5, True, False, [], [coded(PNG)], {}, {"data": coded(PNG)}, {"b64": coded(PNG)}):
        yield f"a {type(value).__name__}", value


def _wrong_texts() -> Iterator[Named]:
    good = coded(PNG)
    yield from (
        (f"text {text[:9]!r}", text) for text in ("", " ", "\n", "é", "====", "A", "%%%%", "\0", "null")
    )
    for scheme in ("http", "https", "file", "ftp", "gs", "s3", "blob", "HTTPS"):
        yield f"an address of {scheme}", f"{scheme}://example.com/cat.png"
    for place in range(0, len(good), len(good) // 12):
        yield f"a star at {place}", f"{good[:place]}*{good[place + 1 :]}"
        yield f"a letter that is not ASCII at {place}", f"{good[:place]}é{good[place + 1 :]}"
        yield f"padding at {place}", f"{good[:place]}===={good[place:]}" if place else f"===={good}"
    for head in (
        *("text/plain;base64", "image/gif;base64", "application/octet-stream;base64", "image/svg+xml;base64"),
        *("image/jpeg;base64", "image/webp;base64", "image/png", "image/png;charset=utf-8", ";base64", ""),
        *("x" * 1000 + ";base64", "image/png" + ";a" * 1000 + ";base64", "image/png;base64;;;;;;;;;;;;;"),
    ):
        yield f"a data: URL of {head[:40]}", f"data:{head},{good}"
    yield from (
        ("a data: URL cut off", text) for text in ("data:", "data:image/png;base64", "data:image/png;base64,")
    )


def _wrong_files() -> Iterator[Named]:
    for format_name in ("gif", "bmp", "tiff", "ico", "ppm", "tga", "pcx", "jpeg2000", "pdf", "icns", "dds"):
        yield f"a {format_name}", coded(file_of(slope(32, 32), format_name))
    for start in (
        *(b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<!doctype html>", b"%PDF-1.7", b"PK\3\4"),
        *(b"\x1f\x8b\x08", b"\x80\x04K\x01.", b"8BPS", b"\0\0\0\x18ftypheic", b"\0\0\0\x18ftypmp42"),
        *(b"\xff\x0a", b"hello there", b"RIFF\0\0\0\0WAVE", b"\x89PNG", b"\xff\xd8", b"GIF89a"),
        *(b"#!/bin/sh\n", b"\x7fELF", bytes(100)),
    ):
        yield f"a file that begins {start[:8]!r}", coded(start.ljust(40, b"\1"))
    for format_name in ("png", "webp", "gif"):
        yield f"an animated {format_name}", coded(animated(format_name))
    yield "a png in a jpeg's data: URL", f"data:image/jpeg;base64,{coded(PNG)}"


def _cut_off() -> Iterator[Named]:
    for format_name, data in FILES.items():
        for share in range(1, 24):
            end = len(data) * share // 24
            yield f"a {format_name} of {share}/24", coded(data[:end])
    yield "a png without IDAT", coded(PNG[:33] + chunk(b"IEND", b""))
    yield "a png of IEND alone", coded(PNG[:8] + chunk(b"IEND", b""))
    yield "a png of chunks that say 4 GB", coded(PNG[:33] + b"\xff\xff\xff\xffIDAT" + PNG[33:])
    yield "a png of 30,000 chunks", coded(PNG[:33] + chunk(b"teXt", b"") * 30_000 + PNG[33:])
    yield (
        "a jpeg of 99 scans",
        coded(JPEG[:2] + JPEG[JPEG.index(b"\xff\xdb") :][:-2] + b"\xff\xda\0\2" * 99 + b"\xff\xd9"),
    )


def _sizes() -> Iterator[Named]:
    for width, height in ((0, 32), (32, 0), (0, 0), (2**31, 1), (1, 2**31), (2**16, 2**16), (2**32 - 1,) * 2):
        header = struct.pack(">II", width, height) + PNG[24:29]
        yield f"a png that says {width}x{height}", coded(PNG[:8] + chunk(b"IHDR", header) + PNG[33:])
    frame = JPEG.index(b"\xff\xc0") + 5
    for width, height in ((0, 32), (32, 0), (65535, 65535), (65535, 1), (2000, 2000)):
        size = struct.pack(">HH", height, width)
        yield f"a jpeg that says {width}x{height}", coded(JPEG[:frame] + size + JPEG[frame + 4 :])


def wrong_sizes() -> Iterator[Named]:
    """Pictures that cannot be drawn in their own size, but can in another."""
    for width, height in ((1, 1), (8, 8), (31, 32), (32, 31), (1000, 20), (16, 900), (900, 900)):
        yield f"a picture of {width}x{height}", coded(file_of(Image.new("L", (width, height)), "png"))


def _bombs() -> Iterator[Named]:
    for mode, side in (("1", 5000), ("1", 12_000), ("L", 3000), ("RGB", 2000), ("P", 3000), ("RGBA", 1500)):
        yield f"a bomb of {mode} {side}x{side}", coded(file_of(Image.new(mode, (side, side)), "png"))
    for format_name in ("jpeg", "webp"):
        yield f"a {format_name} bomb", coded(file_of(Image.new("L", (3000, 3000)), format_name))
    yield "a file that is too large", coded(PNG + bytes(600_000))
    yield "a long line", "A" * 3_000_000
    lines = base64.encodebytes(PNG[:40]).decode() + "\n" * 100_000
    yield "a hundred thousand line ends", lines
