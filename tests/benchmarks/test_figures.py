"""The arithmetic behind docs/benchmarks.md: ratios, goodput, stalls, and the page."""

from __future__ import annotations

import itertools
import logging
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import pytest

from benchmarks import load, report, served, sides, traffic
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
        for body in itertools.islice(traffic.with_invalid(traffic.mixed(), served.ONE_INVALID_OF), 40)
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


class _Answers(BaseHTTPRequestHandler):
    """The status and the body that the path names: /400/error"""

    def log_message(self, *_: object) -> None: ...

    def do_POST(self) -> None:
        _, status, key = self.path.split("/")
        body = f'{{"{key}": {{}}}}'.encode()
        self.send_response(int(status))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def answering() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("path", "status"), [("200/predictions", 200), ("400/error", 400), ("429/error", 429), ("200/error", 500)]
)
def test_an_error_keeps_its_status_unless_its_headers_had_said_200(
    answering: str, path: str, status: int
) -> None:
    [answer] = load.run_closed(f"{answering}/{path}", traffic.equal(20), 1, 1)
    assert (answer.status, answer.good) == (status, status == 200)


def test_a_peer_rests_while_ours_is_measured() -> None:
    port = sides.free_port()
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    peer = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    url, process = f"http://127.0.0.1:{port}/", psutil.Process(peer.pid)
    try:
        while process.is_running() and not process.net_connections():
            time.sleep(0.05)

        def measure(side: str, _: int) -> float:
            """Of ours whether the peer comes to a stop, of the peer what it answers."""
            if side == url:
                return float(httpx.get(url, timeout=60).status_code)
            deadline = time.monotonic() + 10
            while process.status() != psutil.STATUS_STOPPED and time.monotonic() < deadline:
                time.sleep(0.01)
            return float(process.status() == psutil.STATUS_STOPPED)

        pair = served.Pair("ours", url, "peer", rests=True)
        assert pair.alternate(measure, 2) == ((1.0, 1.0), (200.0, 200.0))
    finally:
        peer.kill()
        peer.wait()
