"""``marquee replay``: what it reads, and what it says of a picture drawn again."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hostile_server
import pytest
from PIL import Image

from handler.contract.encode import encode
from handler.contract.picture_metadata import parameters_text
from handler.contract.receipt import pixels_digest
from pipeline.cli import app, edge
from pipeline.client.predictions import Prediction
from pipeline.client.receipts import Kept, read_receipts
from pipeline.client.replay import check_sources, replay
from pipeline.client.source_files import SourceFile
from pipeline.errors import MarqueeError

RED = Image.new("RGB", (64, 64), (200, 10, 10))
RECEIPT: dict[str, Any] = {
    "seed": "9007199254740993",
    "settings": {
        "prompt": "a cat",
        "negative_prompt": "",
        "width": 64,
        "height": 64,
        "num_inference_steps": 2,
        "scheduler": "PNDM",
        "guidance_scale": 1.5,
        "output_format": "png",
    },
    "mode": "strict",
    "versions": {"torch": "2", "python": "3"},
    "weights_digest": "a",
    "archive_digest": "b",
    "device": {"device": "cpu", "dtype": "float32", "profile": "eager"},
    "pixels_sha256": pixels_digest(RED),
}


def changed(pixels: int, by: int) -> Image.Image:
    """RED, with so many pixels changed by so much."""
    image = RED.copy()
    for place in range(pixels):
        image.putpixel((place % 64, place // 64), (200, 10 + by, 10))
    return image


def file_of(image: Image.Image, format_name: str = "png", receipt: dict[str, Any] | None = None) -> bytes:
    return encode(image, format_name, 90, parameters_text(receipt) if receipt else None)


@dataclass
class Again:
    """A client whose server answers with ``receipt`` and ``image``."""

    receipt: dict[str, Any]
    image: Image.Image = field(default_factory=lambda: RED)
    asked: list[dict[str, Any]] = field(default_factory=list)
    format: str = "png"

    def predict(self, instances: list[dict[str, Any]]) -> list[Prediction]:
        self.asked += instances
        told = {**self.receipt, "pixels_sha256": pixels_digest(self.image)}
        return [Prediction(file_of(self.image, self.format), self.format, 64, 64, receipt=told)]


def kept(picture: bytes | None = None, **changes: Any) -> Kept:
    return Kept("receipt.json", {**RECEIPT, **changes}, picture)


@pytest.mark.parametrize(
    ("document", "count"),
    [
        (RECEIPT, 1),
        ([RECEIPT, RECEIPT], 2),
        ({"image": "", "receipt": RECEIPT}, 1),
        ({"predictions": [{"image": "", "receipt": RECEIPT}] * 3}, 3),
        ({"images": [""], "receipts": [RECEIPT]}, 1),
        ({"predictions": [{"images": ["", ""], "receipts": [RECEIPT, RECEIPT]}, {"receipt": RECEIPT}]}, 3),
    ],
)
def test_receipts_are_found_in_every_wrapping(tmp_path: Path, document: Any, count: int) -> None:
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps(document))
    found = read_receipts(file)
    assert [one.receipt for one in found] == [RECEIPT] * count
    assert len({one.name for one in found}) == count


def test_the_pictures_of_an_answer_are_kept_with_their_receipts(tmp_path: Path) -> None:
    files = [file_of(RED), file_of(changed(1, 9))]
    images = [base64.b64encode(one).decode() for one in files]
    file = tmp_path / "answer.json"
    file.write_text(json.dumps({"predictions": [{"images": images, "receipts": [RECEIPT, RECEIPT]}]}))
    assert [one.picture for one in read_receipts(file)] == files


@pytest.mark.parametrize("format_name", ["png", "jpeg", "webp"])
def test_a_picture_with_metadata_is_a_receipt(tmp_path: Path, format_name: str) -> None:
    receipt = {**RECEIPT, "settings": {**RECEIPT["settings"], "prompt": 'a "cat", \u732b\n\\'}}
    file = tmp_path / "drawn"
    file.write_bytes(file_of(RED, format_name, receipt))
    (found,) = read_receipts(file)
    assert found.receipt == receipt
    assert found.picture == file.read_bytes()


def test_a_picture_without_a_receipt_is_refused_by_name(tmp_path: Path) -> None:
    plain, other, broken = (tmp_path / name for name in ("plain.png", "other.png", "broken.png"))
    plain.write_bytes(file_of(RED))
    other.write_bytes(encode(RED, "png", 90, "a cat\nSteps: 20, Sampler: Euler"))
    broken.write_bytes(file_of(RED)[:30])
    for file, words in ((plain, "no receipt in its"), (other, "another program"), (broken, "no receipt")):
        with pytest.raises(MarqueeError, match=rf"{file.name} holds .*{words}"):
            read_receipts(file)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[]",
        "{}",
        "3",
        '{"predictions": 3}',
        '{"receipt": 3}',
        '{"receipts": 3}',
        '{"images": 3, "receipts": [3]}',
        "[" * 100_000,
        '{"predictions":[' * 450 + "]}" * 450,
    ],
)
def test_a_file_without_a_receipt_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "receipt.json"
    file.write_text(text)
    with pytest.raises(MarqueeError, match=r"receipt\.json"):
        read_receipts(file)


def test_the_same_pixels_are_the_same() -> None:
    client = Again(RECEIPT)
    result = replay(client, kept(), {})
    assert result.same
    assert result.right
    assert result.differences == ()
    expected = {**RECEIPT["settings"], "seed": "9007199254740993", "response": "full"}
    assert client.asked == [expected]


def test_other_pixels_under_equal_conditions_are_wrong_in_strict_mode_however_close() -> None:
    result = replay(Again(RECEIPT, changed(1, 1)), kept(), {}, file_of(RED))
    assert result.expected
    assert result.closeness is not None
    assert result.closeness.within
    assert not result.right


@pytest.mark.parametrize(
    ("pixels", "by", "right"),
    [(4096, 1, True), (4, 50, True), (5, 50, False), (4096, 2, False)],
)
def test_fp32_in_company_may_be_one_level_off(pixels: int, by: int, right: bool) -> None:
    fast = {**RECEIPT, "mode": "fast"}
    for picture, against in ((file_of(RED), None), (None, file_of(RED))):
        one = Kept("receipt.json", fast, picture)
        assert replay(Again(fast, changed(pixels, by)), one, {}, against).right is right
    assert not replay(Again(fast, changed(pixels, by)), Kept("receipt.json", fast), {}).right


@pytest.mark.parametrize(("by", "right"), [(4, True), (60, False)])
def test_half_precision_and_lossy_files_have_a_tolerance_in_db(by: int, right: bool) -> None:
    half = {**RECEIPT, "mode": "fast", "device": {"dtype": "bfloat16"}}
    drawn = changed(4096, by)
    result = replay(Again(half, drawn), Kept("receipt.json", half), {}, file_of(RED))
    assert (result.right, str(result.closeness).endswith("34 dB is the tolerance")) == (right, True)
    fast = {**RECEIPT, "mode": "fast"}
    against = file_of(RED, "jpeg")
    again = Again(fast, drawn, format="jpeg")
    assert replay(again, Kept("receipt.json", fast), {}, against).right is right


def test_another_picture_is_not_compared_with() -> None:
    with pytest.raises(MarqueeError, match=r"not the one of receipt\.json"):
        replay(Again(RECEIPT), kept(), {}, file_of(changed(1, 9)))


def test_a_receipt_that_does_not_fit_its_picture_is_refused() -> None:
    class Lying(Again):
        def predict(self, instances: list[dict[str, Any]]) -> list[Prediction]:
            return [Prediction(file_of(changed(9, 9)), "png", 64, 64, receipt=RECEIPT)]

    with pytest.raises(MarqueeError, match="other pixels than its receipt"):
        replay(Lying(RECEIPT), kept(), {})


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"archive_digest": "other"}, "archive"),
        ({"weights_digest": "other"}, "weights"),
        ({"versions": {"torch": "3", "python": "3"}}, "versions"),
        ({"versions": "other"}, "versions"),
        ({"device": {**RECEIPT["device"], "device": "cuda"}}, "device"),
        ({"device": {**RECEIPT["device"], "profile": "compiled"}}, "profile"),
        ({"mode": "fast"}, "mode"),
        ({"loras": [{"name": "ink", "weight": 1, "sha256": "z"}]}, "loras"),
        ({"settings": {**RECEIPT["settings"], "width": 128}}, "settings"),
    ],
)
def test_the_condition_that_differs_is_named(changes: dict[str, Any], name: str) -> None:
    result = replay(Again({**RECEIPT, **changes}, changed(1, 1)), kept(), {})
    assert [difference.name for difference in result.differences] == [name]
    assert not result.expected


def test_a_loras_digest_and_a_single_version_are_said_alone() -> None:
    now = {**RECEIPT, "versions": {"torch": "3", "python": "3"}, "loras": [{"name": "ink", "sha256": "z"}]}
    told = [{"name": "ink", "weight": 0.5, "sha256": "y"}]
    client = Again(now)
    result = replay(client, kept(loras=told), {})
    assert client.asked[0]["loras"] == [{"name": "ink", "weight": 0.5}]
    shown = {one.name: (one.then, one.now) for one in result.differences}
    assert shown == {"loras": ("ink y", "ink z"), "versions": ("torch 2", "torch 3")}


def test_the_pictures_it_was_drawn_from_are_sent_again_when_their_digests_fit() -> None:
    files = {"image": b"photo", "mask_image": b"mask"}
    inputs = {name: {"sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    sources = {name: [SourceFile(Path(name), data)] for name, data in files.items()}
    client = Again({**RECEIPT, "inputs": inputs})
    check_sources([kept(inputs=inputs)], sources)
    assert replay(client, kept(inputs=inputs), sources).same
    assert client.asked[0]["image"] == base64.b64encode(b"photo").decode()
    assert client.asked[0]["mask_image"] == base64.b64encode(b"mask").decode()
    with pytest.raises(MarqueeError, match=r"its mask_image has SHA-256 .*none was given") as caught:
        check_sources([kept(inputs=inputs)], {"image": sources["image"]})
    assert "--mask FILE" in str(caught.value.cure)
    with pytest.raises(MarqueeError, match=r"its image has SHA-256 .*; other\.png has"):
        check_sources([kept(inputs=inputs)], {**sources, "image": [SourceFile(Path("other.png"), b"x")]})
    with pytest.raises(MarqueeError, match=r"--picture image has SHA-256 .*, which no receipt names"):
        check_sources([kept()], {"image": sources["image"]})


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": {"image": {"sha256": None}}},
        {"inputs": {"depth": {"sha256": ""}}},
        {"inputs": 3},
        *({"loras": loras} for loras in (3, [3], {"name": "ink"}, [{"name": "ink"}], "ink")),
        {"pixels_sha256": None},
    ],
)
def test_a_broken_receipt_is_refused_before_anything_is_drawn(changes: dict[str, Any]) -> None:
    with pytest.raises(MarqueeError, match="receipt"):
        check_sources([kept(**changes)], {})


def command(tmp_path: Path, drawn: Image.Image, now: dict[str, Any], *options: str) -> int:
    """The exit code of ``marquee replay`` of two receipts against a server that draws this."""
    (tmp_path / "receipts.json").write_text(json.dumps([RECEIPT, {**RECEIPT, "mode": "fast"}]))
    told = {**now, "pixels_sha256": pixels_digest(drawn)}
    prediction = {"image": base64.b64encode(file_of(drawn)).decode(), "receipt": told}
    with hostile_server.serving(hostile_server.document({"predictions": [prediction]})) as url:
        return edge.run(app, ["replay", str(tmp_path / "receipts.json"), "--url", url, *options])


def test_the_exit_code_says_whether_every_picture_is_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(tmp_path, RED, RECEIPT, "-o", str(tmp_path / "again.png")) == 0
    assert capsys.readouterr().out.count("the same pixels, bit by bit") == 2
    with Image.open(io.BytesIO((tmp_path / "again-2.png").read_bytes())) as again:
        assert again.tobytes() == RED.tobytes()
    assert command(tmp_path, changed(1, 1), RECEIPT) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: 2 of 2 pictures: ")
    assert "in strict mode on the same software and device they may not" in err
    (tmp_path / "kept.png").write_bytes(file_of(RED))
    both = ("--against", str(tmp_path / "kept.png")) * 2
    assert command(tmp_path, changed(1, 1), {**RECEIPT, "mode": "fast"}, *both) == 0
    assert "mode differs: then strict, now fast" in capsys.readouterr().out
    assert command(tmp_path, RED, RECEIPT, *both[:2]) == 1
    assert "--against is given 1 times for 2 receipts" in capsys.readouterr().err
