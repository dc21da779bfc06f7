"""The arithmetic behind docs/benchmarks.md: ratios, goodput, stalls, and the page."""

from __future__ import annotations

import itertools
import logging
import math
import time
from pathlib import Path

import pytest

from benchmarks import load, report, served, traffic
from benchmarks.promises import Promise
from benchmarks.ratio import Ratio, alternate
from benchmarks.stalls import STALL_SECONDS, unstalled


def _ratio(ours: tuple[float, ...], other: tuple[float, ...], lower_is_better: bool = False) -> Ratio:
    return Ratio("figure", "peer", "s", ours, other, lower_is_better, 2.0)


@pytest.mark.parametrize(
    ("ratio", "value"),
    [
        (_ratio((6.0, 8.0, 9.0), (2.0, 2.0, 3.0)), 3.0),
        (_ratio((2.0, 2.0, 3.0), (6.0, 8.0, 9.0), lower_is_better=True), 3.0),
        (_ratio((5.0,), (0.0,)), math.inf),
        (_ratio((0.0,), (0.0,)), 0.0),
        (_ratio((0.2,), (math.inf,), lower_is_better=True), math.inf),
        (_ratio((math.inf,), (2.0,), lower_is_better=True), 0.0),
        (_ratio((math.inf, 0.5), (math.inf, 2.0), lower_is_better=True), 4.0),
        (_ratio((math.inf,), (math.inf,), lower_is_better=True), 0.0),
    ],
)
def test_a_ratio_above_one_is_in_our_favour_and_no_answers_never_are(ratio: Ratio, value: float) -> None:
    assert ratio.value == value
    assert ratio.met == (value >= 2)


def test_both_sides_take_turns_and_hear_the_round() -> None:
    calls: list[tuple[str, int]] = []

    def side(name: str, number: int) -> float:
        calls.append((name, number))
        return float(number)

    found = alternate(lambda n: side("ours", n), lambda n: side("other", n), 3)
    assert found == ((0.0, 1.0, 2.0), (0.0, 1.0, 2.0))
    assert calls == [("ours", 0), ("other", 0), ("other", 1), ("ours", 1), ("ours", 2), ("other", 2)]


def test_goodput_counts_good_answers_within_four_times_the_unloaded_time() -> None:
    answers = [
        load.Answer(0, 3.9, 200, 10),
        load.Answer(0, 4.1, 200, 10),
        load.Answer(0, 4.1, 200, 20),
        load.Answer(0, 1.0, 429, 10),
    ]
    assert served.in_time(answers, {10: 1.0, 20: 2.0}) == 2
    assert load.throughput(answers) == pytest.approx(3 / 4.1)
    assert load.median_seconds(answers, 20) == 4.1
    assert load.median_seconds(answers, 50) == math.inf


def test_each_round_has_requests_of_its_own_and_every_twentieth_is_poison() -> None:
    first, again, other = (list(itertools.islice(traffic.mixed(seed), 40)) for seed in (0, 0, 1))
    assert first == again != other
    bad = [
        body["instances"][0]["num_inference_steps"] == "many"
        for body in itertools.islice(traffic.poisoned(traffic.mixed(), served.POISONED), 40)
    ]
    assert [index for index, poisoned in enumerate(bad) if poisoned] == [19, 39]


def test_a_measurement_that_met_a_stall_is_taken_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sleeps = iter([1.0, 0.0])
    now = time.perf_counter
    late = itertools.accumulate(itertools.repeat(2 * STALL_SECONDS))

    def stalled() -> str:
        if next(sleeps):  # the clock jumps, as it does where the whole machine stands still
            monkeypatch.setattr(time, "perf_counter", lambda: now() + next(late))
        else:
            monkeypatch.setattr(time, "perf_counter", now)
        return f"{len(caplog.records)} stalls before"

    with caplog.at_level(logging.WARNING):
        assert unstalled(stalled) == "1 stalls before"


def test_the_page_keeps_the_sections_that_were_not_measured_again(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    report.write(report.Section(report.SERVED, [_ratio((3.0,), (1.0,))], minutes=12.3), page)
    slow = Promise("a place is free", "s", (0.5, 2.0), 1.0)
    report.write(report.Section(report.GPU, promises=[slow]), page)
    text = page.read_text()
    assert "; 12 minutes." in text
    assert "| figure | peer | 3 | 1 | s | 3.00 | 3.00-3.00 | >= 2 | yes |" in text
    assert "| a place is free | 1.25 | 2 | s | 2 | < 1.0 | **no** |" in text
    assert text.count(report.NOT_MEASURED) == len(report.TITLES) - 2
