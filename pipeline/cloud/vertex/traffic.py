"""Which deployed model a request goes to."""

from __future__ import annotations

import threading
from collections.abc import Mapping


class TrafficSplitter:
    """Smooth weighted round-robin: of a hundred requests in a row each model gets its percentage."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._credit: dict[str, dict[str, int]] = {}

    def choose(self, endpoint: str, split: Mapping[str, int]) -> str:
        """The deployed model id that the next request to ``endpoint`` goes to; ``split`` is not empty."""
        with self._lock:
            before = self._credit.get(endpoint, {})
            credit = {model: before.get(model, 0) + share for model, share in split.items() if share > 0}
            chosen = max(credit, key=lambda model: credit[model])
            credit[chosen] -= sum(split.values())
            self._credit[endpoint] = credit
            return chosen
