from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta

from pipeline.cloud.clock import UTC, Clock


def test_runs_faster_than_time() -> None:
    clock = Clock(speed=3600)
    before = clock.now()
    time.sleep(0.02)
    assert clock.now() - before >= timedelta(minutes=1)


def test_begins_on_another_day() -> None:
    assert Clock(start=datetime(2027, 2, 1, tzinfo=UTC)).now().date().isoformat() == "2027-02-01"


def test_an_hour_can_be_slept_through() -> None:
    clock = Clock(speed=36_000)
    before = clock.now()
    assert clock.sleep(3600) is False
    assert clock.now() - before >= timedelta(hours=1)


def test_sleep_ends_when_told() -> None:
    stop = threading.Event()
    stop.set()
    assert Clock().sleep(10**6, stop) is True
