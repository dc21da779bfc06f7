"""What clients see of two servers with the same weights: throughput, waiting times, errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks import load, sides, traffic
from benchmarks.promises import Promise
from benchmarks.ratio import Ratio, alternate

STEPS = 20
CLIENTS = 16
SHORT = min(traffic.MIXED_STEPS)
PATIENCE = 4.0
ONE_INVALID_OF = 20
"""One request of so many is invalid."""


@dataclass(frozen=True)
class Effort:
    """The amount of work: ``requests`` of a closed load, ``seconds`` of an open one, ``rounds`` of each pair.

    ``whole`` tunes each side, measures the packages and our archive without compiled code, and draws the
    plots.
    """

    rounds: int
    requests: int
    seconds: float
    whole: bool = True


@dataclass(frozen=True)
class Pair:
    """The URLs of our server and of another; ``other`` is the name of the other in the table.

    ``rests``: the other is stopped while ours is measured, because LitServe polls its queues and takes 0.3 of
    two cores when it has nothing to do.
    """

    ours: str
    theirs: str
    other: str
    rests: bool = False

    def alternate(
        self, measure: Callable[[str, int], float], rounds: int
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """``measure(url, round)`` of both sides in turns."""

        def ours(number: int) -> float:
            if not self.rests:
                return measure(self.ours, number)
            with sides.resting(self.theirs):
                return measure(self.ours, number)

        return alternate(ours, lambda number: measure(self.theirs, number), rounds)


class Refusals:
    """Counts the requests of each side that got no picture, for the notes below the table."""

    def __init__(self) -> None:
        self._failed: dict[str, int] = {}
        self._sent: dict[str, int] = {}

    def counted(self, url: str, answers: list[load.Answer]) -> list[load.Answer]:
        self._sent[url] = self._sent.get(url, 0) + len(answers)
        self._failed[url] = self._failed.get(url, 0) + sum(not answer.good for answer in answers)
        return answers

    def note(self, pair: Pair) -> str:
        """Empty where every request had its picture."""
        if not any(self._failed.values()):
            return ""
        ours, theirs = (f"{self._failed[url]} of {self._sent[url]}" for url in (pair.ours, pair.theirs))
        return f"without a picture: {ours} requests of ours, {theirs} of theirs"


def saturated(pair: Pair, effort: Effort, goal: float | None) -> Ratio:
    """Pictures per second of 16 clients that ask for equal steps."""
    refusals = Refusals()

    def rate(url: str, number: int) -> float:
        answers = load.run_closed(url, traffic.equal(STEPS, seed=number), CLIENTS, effort.requests)
        return load.throughput(refusals.counted(url, answers))

    mine, theirs = pair.alternate(rate, effort.rounds)
    name = "throughput, 16 clients, equal steps"
    return Ratio(name, pair.other, "pictures/s", mine, theirs, False, goal, refusals.note(pair))


def mixed_saturation(url: str, requests: int) -> float:
    """Pictures per second of 16 clients with 10 to 50 steps."""
    return load.throughput(load.run_closed(url, traffic.mixed(), CLIENTS, requests))


def short_median(pair: Pair, effort: Effort, saturation: float, goal: float | None) -> Ratio:
    """Median seconds of the 10-step requests among longer ones, at 0.8 of the other side's throughput."""
    refusals = Refusals()

    def median(url: str, number: int) -> float:
        answers = load.run_open(url, traffic.mixed(number), 0.8 * saturation, effort.seconds, number)
        return load.median_seconds(refusals.counted(url, answers), SHORT)

    mine, theirs = pair.alternate(median, effort.rounds)
    name = "median wait of 10-step requests among 10 to 50 steps, at 0.8 of the other's throughput"
    return Ratio(name, pair.other, "s", mine, theirs, True, goal, refusals.note(pair))


def goodput(pair: Pair, effort: Effort, rate: float, goal: float | None) -> Ratio:
    """Answers per second that come within 4 times the unloaded time, at 0.9 of our throughput.

    The unloaded times are the other side's own, measured here: the same bound for both.
    """
    unloaded, refusals = unloaded_seconds(pair.theirs), Refusals()
    seconds = effort.seconds / 2  # the run also waits for the answers that the other side gives late

    def good(url: str, number: int) -> float:
        answers = load.run_open(url, traffic.mixed(number), 0.9 * rate, seconds, number)
        return in_time(refusals.counted(url, answers), unloaded) / seconds

    mine, theirs = pair.alternate(good, effort.rounds)
    name = "pictures in time (4 times the unloaded time), 10 to 50 steps, at 0.9 of our throughput"
    return Ratio(name, pair.other, "pictures/s", mine, theirs, False, goal, refusals.note(pair))


def unloaded_seconds(url: str) -> dict[int, float]:
    """Median seconds of one lone request, by step count."""
    return {
        steps: load.median_seconds(load.run_closed(url, traffic.equal(steps), 1, 3))
        for steps in traffic.MIXED_STEPS
    }


def in_time(answers: Sequence[load.Answer], unloaded: dict[int, float]) -> int:
    """How many good answers came within 4x the unloaded time of their step count."""
    return sum(a.good and a.seconds <= PATIENCE * unloaded[a.num_inference_steps] for a in answers)


def beside_invalid(ours: str, effort: Effort, rate: float) -> tuple[Ratio, list[Promise]]:
    """The share of valid requests in time with 5 % invalid ones on top, against none; and how many failed."""
    unloaded = unloaded_seconds(ours)
    valid_failed: list[float] = []
    invalid_accepted: list[float] = []

    def good(number: int, bodies_per_valid: float) -> float:
        bodies = traffic.mixed(number)
        if bodies_per_valid > 1:
            bodies = traffic.with_invalid(bodies, ONE_INVALID_OF)
        answers = load.run_open(ours, bodies, 0.8 * rate * bodies_per_valid, effort.seconds, number)
        valid = [a for a in answers if a.num_inference_steps]
        valid_failed.append(sum(not a.good for a in valid))
        invalid_accepted.append(sum(a.status != 400 for a in answers if not a.num_inference_steps))
        return in_time(valid, unloaded) / max(1, len(valid))

    more = ONE_INVALID_OF / (ONE_INVALID_OF - 1)
    mine, clean = alternate(lambda n: good(n, more), lambda n: good(n, 1.0), effort.rounds)
    name = "valid requests in time beside 5 % invalid ones"
    ratio = Ratio(name, "ours without invalid ones", "share", mine, clean, False, 0.95)
    return ratio, [
        Promise("valid requests that fail beside invalid ones", "requests", tuple(valid_failed), 1),
        Promise("invalid requests that are not answered 400", "requests", tuple(invalid_accepted), 1),
    ]
