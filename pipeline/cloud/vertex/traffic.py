"""Which deployed model a request goes to, and which of its replicas."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping

from pipeline.cloud.vertex.containers import Container


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


class ReplicaSet:
    """The replicas of one deployed model; each request goes to the one with the fewest in hand."""

    def __init__(self, predict_route: str) -> None:
        self.predict_route = predict_route
        self._lock = threading.Lock()
        self._busy: dict[int, int] = {}
        self._containers: list[Container] = []

    def __len__(self) -> int:
        return len(self._containers)

    def add(self, container: Container) -> None:
        with self._lock:
            self._containers.append(container)

    @contextlib.contextmanager
    def lend(self) -> Iterator[str]:
        """The URL to predict with, counted as busy until the block ends."""
        with self._lock:
            container = min(self._containers, key=lambda each: self._busy.get(id(each), 0))
            self._busy[id(container)] = self._busy.get(id(container), 0) + 1
        try:
            yield container.url + self.predict_route
        finally:
            with self._lock:
                self._busy[id(container)] -= 1

    def shrink(self, count: int) -> None:
        """Stop the newest replicas until ``count`` are left."""
        with self._lock:
            leaving, self._containers = self._containers[count:], self._containers[:count]
        for container in leaving:
            container.stop()
