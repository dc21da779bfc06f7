"""Draws the picture of a receipt again and compares: the same pixels, or which of its conditions differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.client.closeness import Closeness, compare, pixels_digest
from pipeline.client.errors import BadAnswer
from pipeline.client.predictions import Prediction
from pipeline.client.receipts import Kept
from pipeline.client.source_files import SourceFile
from pipeline.errors import MarqueeError

INPUT_OPTIONS = {"image": "--picture", "mask_image": "--mask"}
"""The pictures that another picture can be drawn from, and the options that name their files."""

FILE_SETTINGS = ("response", "output_format", "quality", "metadata")
"""Settings that change the answer or the file, but no pixel."""

Sources = Mapping[str, Sequence[SourceFile]]
"""The files that were given, by the field that they may be sent in."""


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

    They have to be where both pictures were drawn in strict mode and nothing differs. ``closeness`` is None
    where they are the same, or where no picture was kept to compare with.
    """

    same: bool
    expected: bool
    differences: tuple[Difference, ...]
    prediction: Prediction
    closeness: Closeness | None = None

    @property
    def right(self) -> bool:
        """The same pixels, or within the tolerance where equal bits are not promised."""
        return self.same or (not self.expected and self.closeness is not None and self.closeness.within)


def check_sources(kept: Sequence[Kept], sources: Sources) -> None:
    """Raises MarqueeError for a receipt that cannot be drawn with these files, and for a file of no use."""
    used = {name: {_sums(one).get(name) for one in kept} for name in INPUT_OPTIONS}
    for one in kept:
        _wanted(one)
        instance_of(one, sources)
    for name, files in sources.items():
        for file in files:
            if file.sha256 not in used[name]:
                raise MarqueeError(
                    f"{INPUT_OPTIONS[name]} {file.path} has SHA-256 {file.sha256}, which no receipt names",
                    "give the file as it was sent, unchanged, or leave it out",
                )


def replay(client: Draws, kept: Kept, sources: Sources, against: bytes | None = None) -> Replay:
    """Draws again what a receipt tells and compares the pixels, with ``against`` where bits may differ.

    ``against`` is the picture that was kept, else the one that lies beside the receipt. Raises MarqueeError
    for a receipt that cannot be drawn again, and the client's PredictionError.
    """
    wanted = _wanted(kept)
    against = kept.picture if against is None else against
    if against is not None and against.startswith(b"\x89PNG") and pixels_digest(against) != wanted:
        raise MarqueeError(
            f"the picture to compare with is not the one of {kept.name}: its pixels have another SHA-256",
            "give the picture that the receipt came with",
        )
    (prediction,) = client.predict([instance_of(kept, sources)])
    now = prediction.receipt
    if prediction.format == "png" and pixels_digest(prediction.data) != now.get("pixels_sha256"):
        raise BadAnswer("the picture that came has other pixels than its receipt says", status=200)
    differences = tuple(_differences(kept.receipt, now))
    strict = kept.receipt.get("mode") == now.get("mode") == "strict"
    same = now.get("pixels_sha256") == wanted
    closeness = None
    if not same and against is not None:
        dtypes = {str(_part(one, "device").get("dtype")) for one in (kept.receipt, now)}
        closeness = compare(against, prediction.data, dtypes)
    return Replay(same, strict and not differences, differences, prediction, closeness)


def instance_of(kept: Kept, sources: Sources) -> dict[str, Any]:
    """The instance that draws a receipt's picture again. Raises MarqueeError where a file is missing."""
    receipt = kept.receipt
    fields = {**receipt["settings"], "seed": receipt.get("seed"), "response": "full"}
    if loras := receipt.get("loras"):
        fields["loras"] = [_lora(lora) for lora in (loras if isinstance(loras, list) else [loras])]
    for name, wanted in _sums(kept).items():
        files = {file.sha256: file for file in sources.get(name, ())}
        if wanted not in files:
            given = ", ".join(f"{file.path} has {file.sha256}" for file in files.values()) or "none was given"
            raise MarqueeError(
                f"{kept.name}: its {name} has SHA-256 {wanted}; {given}",
                f"give the file that was sent, unchanged: {INPUT_OPTIONS[name]} FILE",
            )
        fields[name] = files[wanted].base64
    return fields


def _wanted(kept: Kept) -> str:
    wanted, safety = kept.receipt.get("pixels_sha256"), kept.receipt.get("safety")
    if wanted is None and isinstance(safety, dict) and safety.get("action") == "withheld":
        raise MarqueeError(
            "the receipt is of a withheld picture, so there are no pixels to compare",
            "replay a receipt of a picture that was sent",
        )
    if not isinstance(wanted, str):
        raise MarqueeError(
            f"{kept.name} has no pixels_sha256", "it comes from an older marquee: draw the picture anew"
        )
    return wanted


def _sums(kept: Kept) -> dict[str, str]:
    """The SHA-256 of each picture that this one was drawn from, by field."""
    inputs = kept.receipt.get("inputs") or {}
    named = inputs.items() if isinstance(inputs, dict) else [("inputs", None)]
    sums = {}
    for name, told in named:
        sha256 = told.get("sha256") if isinstance(told, dict) else None
        if name not in INPUT_OPTIONS or not isinstance(sha256, str):
            raise MarqueeError(
                f"{kept.name} names inputs that are no image or mask_image with a sha256",
                "use the receipt as it came",
            )
        sums[name] = sha256
    return sums


def _lora(told: Any) -> dict[str, Any]:
    if not isinstance(told, dict) or not {"name", "weight"} <= told.keys():
        raise MarqueeError(
            "the receipt names a LoRA without its name and weight", "use the receipt as it came"
        )
    return {"name": told["name"], "weight": told["weight"]}


def _part(receipt: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = receipt.get(name)
    return part if isinstance(part, Mapping) else {name: part}


def _conditions(receipt: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a picture's bits depend on, by the name that messages give it."""
    device = dict(_part(receipt, "device"))
    loras = receipt.get("loras")
    told = [one for one in loras if isinstance(one, dict)] if isinstance(loras, list) else []
    settings = {k: v for k, v in _part(receipt, "settings").items() if k not in FILE_SETTINGS}
    return {
        "archive": {"": receipt.get("archive_digest")},
        "weights": {"": receipt.get("weights_digest")},
        "loras": {str(one.get("name")): one.get("sha256") for one in told},
        "versions": dict(_part(receipt, "versions")),
        "profile": {"": device.pop("profile", None)},
        "device": device,
        "mode": {"": receipt.get("mode")},
        "safety": dict(_part(receipt, "safety")),
        "settings": {**settings, "seed": str(receipt.get("seed")), "inputs": receipt.get("inputs")},
    }


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    found = []
    before, after = _conditions(then), _conditions(now)
    for name, old in before.items():
        new = after[name]
        keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        if keys:
            found.append(Difference(name, _shown(old, keys), _shown(new, keys)))
    return found


def _shown(values: Mapping[str, Any], keys: Sequence[str]) -> str:
    texts = []
    for key in keys:
        value = values.get(key)
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        texts.append(f"{key} {text}".strip())
    text = ", ".join(texts)
    return text if len(text) <= 200 else f"{text[:200]}..."
