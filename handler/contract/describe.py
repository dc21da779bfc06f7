"""What this archive is: versions, device, digests, limits, defaults; also the source of every receipt."""

from __future__ import annotations

import dataclasses
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

from handler import __version__
from handler.contract.settings import OUTPUT_FORMATS, RESPONSES, Settings

if TYPE_CHECKING:
    from handler.model.model import Model


def describe(model: Model, settings: Settings, threads: int, archive_digest: str | None) -> dict[str, Any]:
    """The JSON object that answers {"describe": true} and TorchServe's describe request."""
    return {
        "versions": versions(),
        "device": str(model.device),
        "dtype": str(model.dtype).rpartition(".")[2],
        "channels_last": model.channels_last,
        "threads": threads,
        "weights_digest": model.weights_digest,
        "archive_digest": archive_digest,
        "limits": dataclasses.asdict(settings.limits),
        "defaults": dataclasses.asdict(settings.defaults),
        "schedulers": list(settings.schedulers),
        "output_formats": list(OUTPUT_FORMATS),
        "responses": list(RESPONSES),
    }


def versions() -> dict[str, str]:
    """What draws the pictures, by name; None of it is imported for this."""
    installed = {name: metadata.version(name) for name in ("torch", "diffusers", "transformers")}
    return {"marquee": __version__, "python": platform.python_version(), **installed}
