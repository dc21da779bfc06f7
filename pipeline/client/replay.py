"""Draws the picture of a receipt again and compares: the same pixels, or which of its conditions differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.client.predictions import Prediction
from pipeline.errors import MarqueeError

MOST_RECEIPT_BYTES = 16 << 20
CONDITIONS = {
    "archive": "archive_digest",
    "weights": "weights_digest",
    "versions": "versions",
    "device": "device",
    "mode": "mode",
    "loras": "loras",
    "safety": "safety",
}
"""What a picture's bits depend on beside its settings, and where the receipt says it."""


class Draws(Protocol):
    """A client: ``pipeline.client.Client`` or one of an endpoint."""

    def predict(self, instances: list[dict[str, Any]]) -> list[Prediction]:
        """One picture for each instance."""


@dataclass(frozen=True)
class Difference:
    """A condition that was not the same, with both values as text."""

    name: str
    then: str
    now: str


@dataclass(frozen=True)
class Replay:
    """``same``: the pixels are the same, bit by bit. ``expected``: they had to be.

    They have to be where both pictures were drawn in strict mode and nothing differs.
    """

    same: bool
    expected: bool
    differences: tuple[Difference, ...]
    prediction: Prediction


def read_receipt(path: Path) -> dict[str, Any]:
    """A receipt from a JSON file: the receipt itself, a prediction with one, or an answer with one of those.

    Raises MarqueeError where the file cannot be read or holds no receipt, or more than one.
    """
    cure = 'ask for one: {"prompt": ..., "response": "full"}; the answer\'s "receipt" is it'
    try:
        content = path.read_bytes()[: MOST_RECEIPT_BYTES + 1]
        if len(content) > MOST_RECEIPT_BYTES:
            raise MarqueeError(f"{path} has more than {MOST_RECEIPT_BYTES} bytes, which is no receipt", cure)
        found = list(_receipts(json.loads(content)))
    except OSError as error:
        raise MarqueeError(f"the receipt cannot be read: {error}", "name its file") from error
    except (ValueError, RecursionError) as error:
        raise MarqueeError(f"{path} is not JSON", cure) from error
    if len(found) != 1:
        count = f"{len(found)} receipts; one can be replayed at a time" if found else "no receipt"
        raise MarqueeError(f"{path} holds {count}", cure)
    return found[0]


def _receipts(document: Any) -> list[dict[str, Any]]:
    if not isinstance(document, dict):
        return []
    if isinstance(document.get("settings"), dict) and "seed" in document:
        return [document]
    lists = (document.get("predictions"), document.get("receipts"), [document.get("receipt")])
    inner = next(one for one in lists if isinstance(one, list))
    return [receipt for one in inner for receipt in _receipts(one)]


def replay(client: Draws, receipt: Mapping[str, Any]) -> Replay:
    """Draws again what ``receipt`` tells and compares the digest of the pixels.

    Raises MarqueeError for a receipt without that digest or of a picture that needs another one to begin
    with, and the client's PredictionError.
    """
    wanted = receipt.get("pixels_sha256")
    safety = receipt.get("safety")
    if wanted is None and isinstance(safety, dict) and safety.get("action") == "withheld":
        raise MarqueeError(
            "the receipt is of a withheld picture, so there are no pixels to compare",
            "replay a receipt of a picture that was sent",
        )
    if not isinstance(wanted, str):
        raise MarqueeError(
            "the receipt has no pixels_sha256", "it comes from an older marquee: draw the picture anew"
        )
    if receipt.get("inputs"):
        raise MarqueeError(
            "this picture was made from another one, which a receipt does not hold",
            "replay works for text to image so far",
        )
    (prediction,) = client.predict([_instance(receipt)])
    now = prediction.receipt
    differences = tuple(_differences(receipt, now))
    strict = receipt.get("mode") == now.get("mode") == "strict"
    return Replay(now.get("pixels_sha256") == wanted, strict and not differences, differences, prediction)


def _instance(receipt: Mapping[str, Any]) -> dict[str, Any]:
    fields = {**receipt["settings"], "seed": receipt["seed"], "response": "full"}
    if loras := receipt.get("loras"):
        fields["loras"] = [_lora(lora) for lora in loras] if isinstance(loras, list) else [_lora(loras)]
    return fields


def _lora(told: Any) -> dict[str, Any]:
    if not isinstance(told, dict) or not {"name", "weight"} <= told.keys():
        raise MarqueeError(
            "the receipt names a LoRA without its name and weight", "use the receipt as it came"
        )
    return {"name": told["name"], "weight": told["weight"]}


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    pairs = [(name, then.get(key), now.get(key)) for name, key in CONDITIONS.items()]
    return [Difference(name, _shown(old), _shown(new)) for name, old, new in pairs if old != new]


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= 200 else f"{text[:200]}..."
