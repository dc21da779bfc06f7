"""Container images: the prebuilt ones with their end dates, and the form of another image's address."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

from pipeline.rules.table import Violation, table

_PREBUILT = re.compile(
    r"(?:us|europe|asia)-docker\.pkg\.dev/vertex-ai/prediction/pytorch-(cpu|gpu)\.([\d-]+)(?::latest)?"
)
_OWN = re.compile(r"(?:(?P<place>[a-z0-9-]+)-docker\.pkg\.dev|(?:[a-z]+\.)?gcr\.io)/[^/]+/.+")


@dataclass(frozen=True)
class PrebuiltImage:
    """A parsed prebuilt PyTorch image: "cpu" or "gpu", and its version as in the tag ("2-4")."""

    kind: str
    version: str


def parse_prebuilt(uri: str) -> PrebuiltImage | None:
    """The prebuilt image that ``uri`` names, or None for anything else."""
    match = _PREBUILT.fullmatch(uri)
    return PrebuiltImage(*match.groups()) if match else None


def check_image(uri: str, region: str, today: date) -> list[Violation]:
    """Every rule that a container image breaks, for a model in ``region`` on ``today``."""
    image = parse_prebuilt(uri)
    known = table().prebuilt.get(image.version) if image else None
    if known:
        if today >= known.end_of_availability:
            return [
                table().violation(
                    "image_ended", "serving_container_image_uri", uri, end=known.end_of_availability
                )
            ]
        return []
    own = _OWN.fullmatch(uri)
    if image or own is None or "/vertex-ai/prediction/" in uri:
        return [table().violation("image_unknown", "serving_container_image_uri", uri)]
    place = own["place"]
    if place is not None and place != region:
        return [table().violation("image_region", "serving_container_image_uri", uri, region=region)]
    return []
