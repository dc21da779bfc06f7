"""M2, M3 and the guard: what clients see of two servers on the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import load, traffic
from benchmarks.ratio import Ratio, alternate

STEPS = 20
CLIENTS = 16
SHORT = min(traffic.MIXED_STEPS)
PATIENCE = 4.0


@dataclass(frozen=True)
class Effort:
    """How long: ``requests`` of a closed load, ``seconds`` of an open one, ``rounds`` of each pair.

    ``tune`` starts each side in turn with one and with two threads; without, each gets what was the faster
    here. ``peers`` is the effort for LitServe, BentoML and Ray Serve and for the plots; None leaves them out.
    """

    rounds: int
    requests: int
    seconds: float
    tune: bool = True
    peers: Effort | None = None


def saturated(ours: str, other: str, name: str, effort: Effort, goal: float | None) -> Ratio:
    """M2: pictures per second of 16 clients that ask for equal steps."""

    def rate(url: str) -> float:
        return load.throughput(load.run_closed(url, traffic.equal(STEPS), CLIENTS, effort.requests))

    mine, theirs = alternate(lambda: rate(ours), lambda: rate(other), effort.rounds)
    return Ratio("M2 saturated pictures/s, 16 clients", name, "pictures/s", mine, theirs, False, goal)


def mixed_saturation(url: str, requests: int) -> float:
    """Pictures per second of 16 clients with 10 to 50 steps."""
    return load.throughput(load.run_closed(url, traffic.mixed(), CLIENTS, requests))


def short_median(
    ours: str, other: str, name: str, effort: Effort, saturation: float, goal: float | None
) -> Ratio:
    """M3: median seconds of the 10-step requests at 0.8 of the other side's mixed saturation."""

    def median(url: str) -> float:
        answers = load.run_open(url, traffic.mixed(), 0.8 * saturation, effort.seconds)
        return load.median_seconds(answers, SHORT)

    mine, theirs = alternate(lambda: median(ours), lambda: median(other), effort.rounds)
    return Ratio(
        "M3 median of 10-step requests at 0.8 of the other's saturation", name, "s", mine, theirs, True, goal
    )


def goodput(ours: str, other: str, name: str, effort: Effort, rate: float, goal: float | None) -> Ratio:
    """M3: answers per second that come within 4x the unloaded time, at 0.9 of our mixed saturation.

    The unloaded times are the other side's own, measured here: the same bound for both.
    """
    unloaded = unloaded_seconds(other)

    def good(url: str) -> float:
        # Half as long as the others: what the other side cannot answer in time must be waited for.
        answers = load.run_open(url, traffic.mixed(), 0.9 * rate, effort.seconds / 2)
        return in_time(answers, unloaded) / (effort.seconds / 2)

    mine, theirs = alternate(lambda: good(ours), lambda: good(other), effort.rounds)
    return Ratio("M3 goodput at 0.9 of our saturation", name, "pictures/s", mine, theirs, False, goal)


def unloaded_seconds(url: str) -> dict[int, float]:
    """Median seconds of one lone request, by step count."""
    return {
        steps: load.median_seconds(load.run_closed(url, traffic.equal(steps), 1, 3))
        for steps in traffic.MIXED_STEPS
    }


def in_time(answers: Sequence[load.Answer], unloaded: dict[int, float]) -> int:
    """How many good answers came within 4x the unloaded time of their step count."""
    return sum(a.good and a.seconds <= PATIENCE * unloaded[a.num_inference_steps] for a in answers)


def poison_guard(ours: str, effort: Effort, rate: float) -> tuple[Ratio, int]:
    """Our goodput with 5 % poisoned requests against none, and how many innocents failed (must be 0)."""
    unloaded, innocents_failed = unloaded_seconds(ours), 0

    def good(every: int | None) -> float:
        nonlocal innocents_failed
        bodies = traffic.mixed() if every is None else traffic.poisoned(traffic.mixed(), every)
        answers = load.run_open(ours, bodies, 0.8 * rate, effort.seconds)
        innocents = [a for a in answers if a.num_inference_steps]
        innocents_failed += sum(not a.good for a in innocents)
        return in_time(innocents, unloaded) / max(1, len(innocents))

    mine, clean = alternate(lambda: good(20), lambda: good(None), effort.rounds)
    ratio = Ratio(
        "guard: share in time with 5 % poison", "ours without poison", "share", mine, clean, False, 0.95
    )
    return ratio, innocents_failed
