"""What TorchServe loads from the root of model.mar; it wants exactly one class defined here."""

from __future__ import annotations

from handler.torchserve import Door


class MarqueeHandler(Door):
    """TorchServe calls ``initialize`` once per worker and ``handle`` once per batch of requests."""
