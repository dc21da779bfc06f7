"""A figure of the table: both sides measured in one run, alternating, with median and spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

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
        return statistics.median(self.rounds)

    @property
    def rounds(self) -> list[float]:
        pairs = zip(self.ours, self.other, strict=True)
        if self.lower_is_better:
            return [theirs / max(mine, 1e-9) for mine, theirs in pairs]
        return [mine / max(theirs, 1e-9) for mine, theirs in pairs]

    @property
    def met(self) -> bool | None:
        return None if self.goal is None else self.value >= self.goal


def alternate(
    ours: Callable[[], float], other: Callable[[], float], rounds: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure both in turns, ``rounds`` times; which goes first alternates too."""
    mine, theirs = list[float](), list[float]()
    for index in range(rounds):
        for side in ("ours", "other") if index % 2 == 0 else ("other", "ours"):
            if side == "ours":
                mine.append(unstalled(ours))
            else:
                theirs.append(unstalled(other))
    return tuple(mine), tuple(theirs)
