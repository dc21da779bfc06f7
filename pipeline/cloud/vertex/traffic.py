"""Chooses the deployed model for a request."""

from __future__ import annotations

import random
from collections.abc import Mapping

from pipeline.environment import read_environment


class TrafficSplitter:
    """Chooses at random, in proportion to the shares, as a real endpoint does.

    ``seed`` repeats a sequence of choices, for tests; without one the environment variable
    MARQUEE_TRAFFIC_SEED is read, and without that every cloud chooses anew.
    """

    def __init__(self, seed: int | None = None) -> None:
        given = read_environment().traffic_seed if seed is None else seed
        self._chance = random.Random(given)

    def choose(self, endpoint: str, split: Mapping[str, int]) -> str:
        """The deployed model id that the next request to ``endpoint`` goes to; ``split`` is not empty."""
        serving = {model: share for model, share in split.items() if share > 0}
        return self._chance.choices(list(serving), weights=list(serving.values()))[0]
