"""Refusals that every door gives."""

from __future__ import annotations

from handler.contract.problem import Refusal

DRAINING = Refusal(503, "draining", "the server is stopping and takes no new requests", (), 5)
INTERNAL = Refusal(500, "internal", "the server failed on this request; its log says why")
