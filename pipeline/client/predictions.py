"""From the server's JSON to checked pictures."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.client.errors import BadAnswer


@dataclass(frozen=True)
class Prediction:
    """One picture as the server encoded it: ``data`` opens with Pillow, ``width`` and ``height`` are pixels.

    ``format`` is "jpeg", "png" or "webp". ``seed`` is the one that was sent: with it the same request draws
    the same picture. ``receipt`` is the server's (``response: "full"``), else empty. ``warnings`` are
    sentences about this picture, such as that the end of a long prompt was not used.
    """

    data: bytes = field(repr=False)
    format: str
    width: int
    height: int
    seed: int | None = None
    receipt: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        """Write the encoded picture, as it came."""
        path.write_bytes(self.data)


def parse_predictions(answer: Any, seeds: list[int | None]) -> list[Prediction]:
    """One Prediction per seed sent, in order; raises BadAnswer where the answer holds anything else."""
    predictions = answer.get("predictions") if isinstance(answer, dict) else None
    if not isinstance(predictions, list) or len(predictions) != len(seeds):
        count = len(predictions) if isinstance(predictions, list) else "no"
        raise BadAnswer(f"{len(seeds)} pictures were asked for, {count} came", status=200)
    told = _warnings(answer.get("warnings"))
    return [
        replace(parsed, warnings=parsed.warnings or told.get(index, ()))
        for index, (prediction, seed) in enumerate(zip(predictions, seeds, strict=True))
        for parsed in [parse_prediction(prediction, seed)]
    ]


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
    # Vertex's predict route keeps nothing beside the predictions, so a full one brings its own.
    warnings = tuple(line for lines in _warnings(whole.get("warnings")).values() for line in lines)
    return Prediction(data, format_name, width, height, seed, whole.get("receipt", {}), warnings)


def _warnings(told: Any) -> dict[Any, tuple[str, ...]]:
    """The server's warnings by the index of their instance; what is none is left out."""
    found: dict[Any, tuple[str, ...]] = {}
    for one in told if isinstance(told, list) else ():
        if isinstance(one, dict) and isinstance(one.get("message"), str):
            index = one.get("instance")
            index = index if isinstance(index, int) else None
            found[index] = (*found.get(index, ()), one["message"])
    return found
