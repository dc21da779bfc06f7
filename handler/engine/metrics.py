"""What the engine counts and measures, as plain numbers."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field


@dataclass
class EngineMetrics:
    """Counts since the start, and observations in seconds since the last ``drain``.

    Made by the engine's thread and read by another: nothing here takes two operations that must go together.
    """

    counts: Counter[str] = field(default_factory=Counter)
    observations: deque[tuple[str, float]] = field(default_factory=deque)

    KEPT = 10_000
    """The most observations that are kept until ``drain`` is called."""

    def count(self, name: str, by: int = 1) -> None:
        self.counts[name] += by

    def observe(self, name: str, seconds: float) -> None:
        if len(self.observations) < self.KEPT:
            self.observations.append((name, seconds))

    def drain(self) -> list[tuple[str, float]]:
        """The observations so far, which are then forgotten."""
        return [self.observations.popleft() for _ in range(len(self.observations))]
