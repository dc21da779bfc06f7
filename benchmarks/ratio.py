"""A figure of the table: both sides measured in one run, alternating, with median and spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.stalls import unstalled


@dataclass(frozen=True)
class Ratio:
    """``ours`` and ``other`` in one unit, measured in turns; a ratio above 1 is in our favour.

    ``lower_is_better`` is True for seconds and False for rates. ``goal`` is the ratio to reach, or None.
    """

    name: str
    other_side: str
    unit: str
    ours: tuple[float, ...]
    other: tuple[float, ...]
    lower_is_better: bool
    goal: float | None = None
    note: str = ""

    @property
    def value(self) -> float:
        """The median of the rounds' ratios; the two sides of a round ran on the machine in the same state."""
        return statistics.median(self.rounds or [0.0])

    @property
    def rounds(self) -> list[float]:
        """One ratio a round; a round in which neither side has a figure is left out."""
        pairs = [pair for pair in zip(self.ours, self.other, strict=True) if pair != (math.inf, math.inf)]
        if self.lower_is_better:
            return [_times(theirs, mine) for mine, theirs in pairs]
        return [_times(mine, theirs) for mine, theirs in pairs]

    @property
    def met(self) -> bool | None:
        return None if self.goal is None else self.value >= self.goal


def _times(top: float, bottom: float) -> float:
    """The quotient; where one side drew nothing (rate 0, infinite seconds) 0 if it is ours, else infinity."""
    if top == 0 or math.isinf(bottom):
        return 0.0
    return top / bottom if bottom else math.inf


def alternate(
    ours: Callable[[int], float], other: Callable[[int], float], rounds: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure both in turns; each gets the round's number, and they take turns in going first."""
    mine, theirs = list[float](), list[float]()
    for number in range(rounds):
        for side in ("ours", "other") if number % 2 == 0 else ("other", "ours"):
            if side == "ours":
                mine.append(unstalled(partial(ours, number)))
            else:
                theirs.append(unstalled(partial(other, number)))
    return tuple(mine), tuple(theirs)
