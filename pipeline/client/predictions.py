"""From the server's JSON to checked pictures."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.client.errors import BadAnswer


@dataclass(frozen=True)
class Prediction:
    """One picture as the server encoded it: ``data`` opens with Pillow, ``width`` and ``height`` are pixels.

    ``format`` is "jpeg", "png" or "webp". ``seed`` is the one that was sent: with it the same request draws
    the same picture. ``receipt`` is the server's (``response: "full"``), else empty.
    """

    data: bytes = field(repr=False)
    format: str
    width: int
    height: int
    seed: int | None = None
    receipt: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the encoded picture, as it came."""
        path.write_bytes(self.data)


def parse_predictions(answer: Any, seeds: list[int | None]) -> list[Prediction]:
    """One Prediction per seed sent, in order; raises BadAnswer where the answer holds anything else."""
    predictions = answer.get("predictions") if isinstance(answer, dict) else None
    if not isinstance(predictions, list) or len(predictions) != len(seeds):
        count = len(predictions) if isinstance(predictions, list) else "no"
        raise BadAnswer(f"{len(seeds)} pictures were asked for, {count} came", status=200)
    return [parse_prediction(prediction, seed) for prediction, seed in zip(predictions, seeds, strict=True)]


def parse_prediction(prediction: Any, seed: int | None) -> Prediction:
    """Decode one base64 string or ``{"image", "receipt"}`` object down to its pixels."""
    from PIL import Image

    whole = prediction if isinstance(prediction, dict) else {"image": prediction}
    if isinstance(whole.get("error"), dict):
        raise BadAnswer(f"instead of a picture came: {whole['error'].get('message')}", status=200)
    try:
        data = base64.b64decode(whole["image"], validate=True)
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            width, height = image.size
            format_name = (image.format or "").lower()
    except (KeyError, TypeError, binascii.Error, OSError) as error:
        raise BadAnswer(f"a prediction is no picture: {str(prediction)[:80]!r}", status=200) from error
    return Prediction(data, format_name, width, height, seed, whole.get("receipt", {}))
