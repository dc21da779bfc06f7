"""``marquee replay``: what it reads, and what it says of a picture drawn again."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipeline.client.predictions import Prediction
from pipeline.client.replay import read_receipt, replay
from pipeline.errors import MarqueeError

RECEIPT: dict[str, Any] = {
    "seed": "9007199254740993",
    "settings": {"prompt": "a cat", "width": 64},
    "mode": "strict",
    "versions": {"torch": "2"},
    "weights_digest": "a",
    "archive_digest": "b",
    "device": {"device": "cpu"},
    "pixels_sha256": "c",
}


@dataclass
class Again:
    """A client whose server answers with ``receipt``."""

    receipt: dict[str, Any]
    asked: list[dict[str, Any]] = field(default_factory=list)

    def predict(self, instances: list[dict[str, Any]]) -> list[Prediction]:
        self.asked += instances
        return [Prediction(b"", "png", 64, 64, receipt=self.receipt)]


@pytest.mark.parametrize(
    "document",
    [
        RECEIPT,
        {"image": "", "receipt": RECEIPT},
        {"predictions": [{"image": "", "receipt": RECEIPT}]},
        {"images": [""], "receipts": [RECEIPT]},
    ],
)
def test_a_receipt_is_found_in_every_wrapping(tmp_path: Path, document: Any) -> None:
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps(document))
    assert read_receipt(file) == RECEIPT


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
        "[" * 100_000,
        '{"predictions":[' * 450 + "]}" * 450,
    ],
)
def test_a_file_without_a_receipt_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "receipt.json"
    file.write_text(text)
    with pytest.raises(MarqueeError, match=r"receipt\.json"):
        read_receipt(file)


def test_two_receipts_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps({"receipts": [RECEIPT, RECEIPT]}))
    with pytest.raises(MarqueeError, match="2 receipts"):
        read_receipt(file)


def test_the_same_pixels_are_the_same() -> None:
    client = Again(RECEIPT)
    result = replay(client, RECEIPT)
    assert result.same
    assert result.differences == ()
    assert client.asked == [{"prompt": "a cat", "width": 64, "seed": "9007199254740993", "response": "full"}]


def test_other_pixels_under_equal_conditions_are_a_fault_in_strict_mode_only() -> None:
    assert replay(Again({**RECEIPT, "pixels_sha256": "d"}), RECEIPT).expected
    fast = {**RECEIPT, "mode": "fast"}
    assert not replay(Again({**fast, "pixels_sha256": "d"}), fast).expected


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("archive_digest", "archive"),
        ("weights_digest", "weights"),
        ("versions", "versions"),
        ("device", "device"),
        ("mode", "mode"),
    ],
)
def test_the_condition_that_differs_is_named(key: str, name: str) -> None:
    result = replay(Again({**RECEIPT, key: "other"}), RECEIPT)
    assert [difference.name for difference in result.differences] == [name]
    assert not result.expected


def test_a_picture_made_from_another_one_is_refused() -> None:
    with pytest.raises(MarqueeError, match="made from another one"):
        replay(Again(RECEIPT), {**RECEIPT, "inputs": {"image": {"sha256": ""}}})


@pytest.mark.parametrize("loras", [3, [3], {"name": "ink"}, [{"name": "ink"}], "ink"])
def test_a_receipt_with_a_broken_lora_is_refused(loras: Any) -> None:
    with pytest.raises(MarqueeError, match="LoRA without its name and weight"):
        replay(Again(RECEIPT), {**RECEIPT, "loras": loras})


def test_a_receipt_with_loras_asks_for_them() -> None:
    client = Again(RECEIPT)
    replay(client, {**RECEIPT, "loras": [{"name": "ink", "weight": 0.5, "sha256": "e"}]})
    assert client.asked[0]["loras"] == [{"name": "ink", "weight": 0.5}]


def test_a_receipt_of_an_older_marquee_is_refused() -> None:
    old = {name: value for name, value in RECEIPT.items() if name != "pixels_sha256"}
    with pytest.raises(MarqueeError, match="pixels_sha256"):
        replay(Again(RECEIPT), old)
