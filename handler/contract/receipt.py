"""The receipt of a picture: what it takes to draw it again, and digests that tell whether it is the same.

Nothing here holds a picture that came in; its SHA-256 stands for it. Torch-free.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from handler.contract.job import Job, Picture

if TYPE_CHECKING:
    from PIL import Image

MAX_EXACT = 2**53
"""A JSON number from here on may become a double on its way; such a seed travels as a string."""

NOT_SETTINGS = ("seed", "image", "mask_image", "loras", "deadline_seconds", "previews")
"""Fields of a job that are told elsewhere in the receipt, or that change nothing in the picture."""


def make_receipt(
    job: Job, picture: Picture, description: Mapping[str, Any], file: bytes | None, encode_seconds: float
) -> dict[str, Any]:
    """The receipt that travels beside a picture; ``file`` is the encoded picture, None: it is withheld."""
    cut_texts = {name: dataclasses.asdict(cut) for name, cut in picture.cut_texts.items()}
    seconds = {**picture.seconds, "encode": encode_seconds}
    return {
        **origin(job, picture, description),
        "file_sha256": None if file is None else hashlib.sha256(file).hexdigest(),
        "timings": {**{name: round(value, 4) for name, value in seconds.items()}, **_previews(picture)},
        **({"cut_texts": cut_texts} if cut_texts else {}),
    }


def origin(job: Job, picture: Picture, description: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a receipt that is the same whenever the picture is drawn again; goes into its file, too.

    ``settings`` and ``seed`` are fields of a request that draws the picture again, together with the pictures
    that ``inputs`` names and with ``loras``. ``pixels_sha256`` is that of the picture as it was sent: blurred
    where the safety checker's verdict had it blurred, null where it is withheld.
    """
    engine = description.get("engine", {})
    inputs = {"image": job.image, "mask_image": job.mask_image}
    sums = {name: {"sha256": source.sha256} for name, source in inputs.items() if source is not None}
    loras = _loras(job, description)
    return {
        "seed": job.seed if job.seed < MAX_EXACT else str(job.seed),
        "family": job.family,
        "settings": settings_of(job),
        **({"inputs": sums} if sums else {}),
        **({"loras": loras} if loras else {}),
        "mode": "strict" if engine.get("strict") else "fast",
        "versions": description.get("versions", {}),
        "weights_digest": description.get("weights_digest"),
        "archive_digest": description.get("archive_digest"),
        "device": {
            **{name: description.get(name) for name in ("device", "device_name", "dtype", "threads")},
            "profile": engine.get("name"),
        },
        **({"safety": dataclasses.asdict(picture.safety)} if picture.safety else {}),
        "pixels_sha256": None if picture.image is None else pixels_digest(picture.image),
    }


def settings_of(job: Job) -> dict[str, Any]:
    """The job's fields as a request sends them, with the archive's defaults filled in.

    What is left out changes nothing: no end of guidance, no strength without a picture to change.
    """
    fields = {spec.name: (getattr(job, spec.name), spec.default) for spec in dataclasses.fields(job)}
    if job.image is not None:
        fields["strength"] = (job.strength, None)
    return {
        name: value
        for name, (value, neutral) in fields.items()
        if name not in NOT_SETTINGS and value != neutral
    }


def pixels_digest(image: Image.Image) -> str:
    """SHA-256 of the RGB bytes, row by row, before they are encoded, and of the size in front of them."""
    rgb = image.convert("RGB")
    digest = hashlib.sha256(f"{rgb.width}x{rgb.height}\n".encode())
    digest.update(rgb.tobytes())
    return digest.hexdigest()


def _previews(picture: Picture) -> dict[str, Any]:
    """What showing previews took; nothing where none were asked for."""
    cost = picture.previews
    if cost is None:
        return {}
    return {"previews": {**dataclasses.asdict(cost), "seconds": round(cost.seconds, 4)}}


def _loras(job: Job, description: Mapping[str, Any]) -> list[dict[str, Any]]:
    known = description.get("loras", {})
    return [
        {"name": lora.name, "weight": lora.weight, "sha256": (known.get(lora.name) or {}).get("sha256")}
        for lora in job.loras
    ]
