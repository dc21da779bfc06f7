"""What this archive is: versions, device, digests, limits, defaults; also the source of every receipt."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from importlib import metadata

from handler import __version__
from handler.contract.picture_file import FORMATS
from handler.contract.settings import OUTPUT_FORMATS, RESPONSES, Settings


@dataclasses.dataclass(frozen=True)
class Loaded:
    """The model as it was loaded; ``threads`` are those of this worker, digests are SHA-256.

    ``device_name`` is the GPU's or the processor's, with the instruction sets that torch uses.
    """

    families: tuple[str, ...]
    """What can be asked for: of text_to_image, image_to_image and inpaint."""
    device: str
    device_name: str
    dtype: str
    channels_last: bool
    threads: int
    weights_digest: str
    archive_digest: str | None
    packages: Mapping[str, str | None]
    """Whose diffusers and so on are used: ``handler.model.vendored.packages_in_use``."""
    loras: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=dict)
    """By name: ``sha256`` of the LoRA's file and its ``default_weight``."""
    safety_checker: Mapping[str, object] | None = None
    """``sha256`` over the digests of its files, and ``action``: what is done with a flagged picture."""


def describe(loaded: Loaded, settings: Settings, engine: Mapping[str, object]) -> dict[str, object]:
    """The JSON object that answers {"describe": true} and TorchServe's describe request."""
    return {
        "versions": versions(),
        **dataclasses.asdict(loaded),
        "limits": dataclasses.asdict(settings.limits),
        "defaults": dataclasses.asdict(settings.defaults),
        "presets": {name: dict(preset) for name, preset in settings.presets.items()},
        "schedulers": list(settings.schedulers),
        "image_formats": list(FORMATS),
        "output_formats": list(OUTPUT_FORMATS),
        "responses": list(RESPONSES),
        "engine": dict(engine),
    }


def versions() -> dict[str, str]:
    """What draws the pictures, by name; None of it is imported for this."""
    installed = {name: metadata.version(name) for name in ("torch", "diffusers", "transformers")}
    return {"marquee": __version__, "python": platform.python_version(), **installed}
