"""How long the client waits before it asks again."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from pipeline.client import PredictionError, ServerBusy, ServerFailed
from pipeline.client.answers import retry_after_seconds
from pipeline.client.retries import LONGEST_WAIT_SECONDS, Patience, wait_seconds, with_retries
from pipeline.errors import MarqueeError


def waits(number: int, error: PredictionError) -> list[float]:
    return [wait_seconds(error, number, 0.5) for _ in range(300)]


def test_waits_are_random_from_nothing_to_a_doubling_bound() -> None:
    dead = ServerFailed("dead", status=507)
    for number, longest in ((1, 0.5), (2, 1.0), (5, 8.0), (9, 20.0), (30, 20.0), (5000, 20.0)):
        found = waits(number, dead)
        assert 0 <= min(found) < longest * 0.2
        assert longest * 0.8 < max(found) <= longest <= LONGEST_WAIT_SECONDS


def test_a_server_is_not_asked_earlier_than_it_says() -> None:
    assert min(waits(1, ServerBusy("busy", 503, 7.5))) == 7.5
    assert min(waits(1, ServerBusy("busy", 503, 100.0))) == 100.0
    assert len(set(waits(1, ServerBusy("busy", 503, 0.0)))) > 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0),
        ("60", 60),
        (" 1.5 ", 1.5),
        ("99999999999", 99999999999),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        *(
            (word, None)
            for word in ("nan", "inf", "-inf", "-5", "1e9", "1_0", "", "soon", "٣", "1, 2", "9" * 999)
        ),
        *((f"{day} 00:00:00 GMT", None) for day in ("Thu, 99 Jan 2026", "Thu, 01 Jan 99999999999")),
    ],
)
def test_only_seconds_and_dates_are_waits(header: str, seconds: float | None) -> None:
    assert retry_after_seconds(header) == seconds


def test_a_date_is_the_time_until_then() -> None:
    header = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    seconds = retry_after_seconds(header)
    assert seconds is not None
    assert 90 < seconds <= 100


def test_a_wait_beyond_the_deadline_ends_the_call_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"slept {seconds} s"))

    def busy(_: float) -> None:
        raise ServerBusy("full", 429, 31.0)

    with pytest.raises(ServerBusy):
        with_retries(busy, Patience(deadline_seconds=30.0, attempts=5))


@pytest.mark.parametrize(
    "values", [{"attempts": 0}, {"deadline_seconds": -1}, {"first_wait_seconds": float("nan")}]
)
def test_impossible_patience_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(MarqueeError, match=next(iter(values))):
        Patience(**values)  # type: ignore[arg-type]
