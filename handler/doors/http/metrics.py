"""GET /metrics: the engine's own numbers and the requests by door and status, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from handler.doors.http.desk import Desk
from handler.doors.http.drawer import Numbers

COUNTERS = ("admitted", "refused", "cancelled", "finished", "failed", "steps", "unet_calls", "image_steps")
"""As TorchServe's door publishes them."""

BOUNDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Seconds, the upper ends of a histogram's buckets."""

TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """Seconds since the start, by bucket."""

    def __init__(self) -> None:
        self.buckets = [0] * len(BOUNDS)
        self.count, self.sum = 0, 0.0

    def add(self, seconds: float) -> None:
        """Counts one observation; a bucket holds all that are not longer than its bound."""
        self.count += 1
        self.sum += seconds
        for index, bound in enumerate(BOUNDS):
            self.buckets[index] += seconds <= bound

    def lines(self, name: str) -> Iterator[str]:
        """The lines of one histogram."""
        yield f"# TYPE marquee_{name} histogram"
        for bound, count in zip(BOUNDS, self.buckets):
            yield f'marquee_{name}_bucket{{le="{bound:g}"}} {count}'
        yield f'marquee_{name}_bucket{{le="+Inf"}} {self.count}'
        yield f"marquee_{name}_sum {self.sum:.6f}"
        yield f"marquee_{name}_count {self.count}"


class Metrics:
    """The text of /metrics; keeps what the engine forgets once it has been asked."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._histograms = {name: Histogram() for name in ("queue_seconds", "picture_seconds")}

    def text(self) -> str:
        """All numbers as they are now."""
        numbers = self._desk.drawer.numbers() if self._desk.drawer else Numbers()
        for name, seconds in numbers.seconds:
            self._histograms.setdefault(name, Histogram()).add(seconds)
        return "\n".join([*self._engine(numbers), *self._requests()]) + "\n"

    def _engine(self, numbers: Numbers) -> Iterator[str]:
        for name in dict.fromkeys([*COUNTERS, *numbers.counts]):
            yield f"# TYPE marquee_{name} counter"
            yield f"marquee_{name} {numbers.counts.get(name, 0)}"
        for name, value in numbers.gauges.items():
            yield f"# TYPE marquee_{name} gauge"
            yield f"marquee_{name} {value:g}"
        for name, histogram in self._histograms.items():
            yield from histogram.lines(name)

    def _requests(self) -> Iterator[str]:
        yield "# HELP marquee_http_requests_total Answered requests; 499: the client had hung up."
        yield "# TYPE marquee_http_requests_total counter"
        for (door, status), count in sorted(self._desk.answered.items()):
            yield f'marquee_http_requests_total{{door="{door}",status="{status}"}} {count}'
        yield "# TYPE marquee_http_requests_open gauge"
        yield f"marquee_http_requests_open {self._desk.open_requests}"


def add_metrics_route(app: FastAPI, desk: Desk) -> None:
    """GET /metrics."""
    numbers = Metrics(desk)

    async def metrics(_http: Request) -> Response:
        return Response(numbers.text(), media_type=TEXT)

    app.add_api_route("/metrics", metrics, include_in_schema=False, response_model=None)
