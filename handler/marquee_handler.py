"""What TorchServe loads from the root of model.mar; it wants exactly one class defined here."""

from __future__ import annotations

from pathlib import Path

from handler.model.vendored import use_vendored

use_vendored(Path(__file__).resolve().parent)

# What these import may be in the archive's packages.
from handler.doors.torchserve.door import Door  # noqa: E402
from handler.doors.torchserve.envelope import own_envelopes  # noqa: E402

# TorchServe binds an envelope right after it has imported this file.
own_envelopes()


class MarqueeHandler(Door):
    """TorchServe calls ``initialize`` once per worker and ``handle`` once per batch of requests."""
