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

    ``lower_is_better`` for seconds, False for rates. ``goal`` is the ratio the issue asks for, None where
    it asks for none.
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
        """The median of the rounds' own ratios: each round's two sides met the same machine."""
        return statistics.median(self.rounds or [0.0])

    @property
    def rounds(self) -> list[float]:
        """One ratio a round, but none of a round in which nobody was asked for what is measured."""
        pairs = [pair for pair in zip(self.ours, self.other, strict=True) if pair != (math.inf, math.inf)]
        if self.lower_is_better:
            return [_times(theirs, mine) for mine, theirs in pairs]
        return [_times(mine, theirs) for mine, theirs in pairs]

    @property
    def met(self) -> bool | None:
        return None if self.goal is None else self.value >= self.goal


def _times(top: float, bottom: float) -> float:
    """Where a side gave nothing (rate 0, or endless seconds): 0 if it was ours, else infinity."""
    if top == 0 or math.isinf(bottom):
        return 0.0
    return top / bottom if bottom else math.inf


def alternate(
    ours: Callable[[int], float], other: Callable[[int], float], rounds: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure both in turns; each gets the round's number, and which goes first alternates too."""
    mine, theirs = list[float](), list[float]()
    for number in range(rounds):
        for side in ("ours", "other") if number % 2 == 0 else ("other", "ours"):
            if side == "ours":
                mine.append(unstalled(partial(ours, number)))
            else:
                theirs.append(unstalled(partial(other, number)))
    return tuple(mine), tuple(theirs)
