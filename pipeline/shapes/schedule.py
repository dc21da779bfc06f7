"""How long and how fast a network trains."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Warm up, hold ``rate``, then fall to a hundredth of it over the last ``fall`` steps."""

    steps: int
    fall: int
    batch: int
    rate: float
    warm_up: int = 150

    def factor(self, step: int) -> float:
        """The learning rate at a step, over ``rate``."""
        left = (self.steps - step) / max(1, self.fall)
        return max(0.01, min(1.0, (step + 1) / self.warm_up, left))
