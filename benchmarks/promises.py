"""Promises in absolute figures: how soon a hang-up frees a place and a killed worker is replaced."""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from benchmarks import core, load, traffic
from handler.contract.job import Job
from handler.doors.torchserve.continuous import Arrival, ContinuousBatches
from handler.doors.torchserve.request_book import RequestBook
from handler.engine.runner import Runner
from handler.engine.watchdog import Watchdog
from pipeline.archive.build import BuildConfig, build
from pipeline.progress import Silent
from pipeline.serving.server import RunningServer
from pipeline.serving.settings import ServeOptions
from pipeline.serving.torchserve import serve

PLACES = 8
LONG, SHORT = 100, 5
SMALL, LARGE = 64, 128
PHASES = (0.25, 0.5, 0.75)
"""How far into a step clients hang up: the rest of that step cannot be taken back."""


@dataclass(frozen=True)
class Promise:
    """``values`` in ``unit``, one a try, all to be below ``below``.

    ``below`` is inf where an answer is promised, however late, and None where nothing is promised.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    below: float | None

    @property
    def worst(self) -> float:
        return max(self.values)

    @property
    def met(self) -> bool | None:
        return None if self.below is None else self.worst < self.below


class Journal(Counter[str]):
    """The engine's counters, which also records the order in which they are counted up."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __setitem__(self, name: str, count: int) -> None:
        super().__setitem__(name, count)
        self.names.append(name)


def measure(model: Path, folder: Path, rounds: int, tell: Callable[[str], None]) -> list[Promise]:
    """Hang-ups in process and through TorchServe, then kills of its worker; ``model`` is the embedded one."""
    mar = _archive(model, folder / "promises")
    calls = tuple(float(_calls_before_the_next(mar)) for _ in range(rounds))
    promises = [Promise("hang-up until the next request is drawn, engine", "UNet calls", calls, 1.0)]
    with serve(mar, ServeOptions(threads=2)) as server, httpx.Client(timeout=300) as client:
        for pixels in (SMALL, LARGE):
            promises += _hang_ups(client, server.predict_url, pixels, rounds)
        promises += _kills(client, server, rounds)
    for one in promises:
        tell(f"{one.name}: {one.worst:.3g} {one.unit} at worst")
    return promises


def _archive(model: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    settings = yaml.safe_load((model.parent / "model-config.yaml").read_text())
    settings["marquee"]["max_batch"] = PLACES
    config = folder / "model-config.yaml"
    config.write_text(yaml.safe_dump(settings))
    return build(BuildConfig(str(model), folder / "model.mar", config, container="marquee"), Silent()).path


def _calls_before_the_next(mar: Path) -> int:
    """How many UNet calls begin after a hang-up before one draws the request that waits for the place."""
    with tempfile.TemporaryDirectory() as unpacked, zipfile.ZipFile(mar) as archive:
        archive.extractall(unpacked)
        engine, _, settings = core.load_engine(Path(unpacked))
    bodies, watchdog = traffic.equal(LONG), Watchdog(600)
    book = RequestBook[Any](Runner(engine, watchdog))
    batches, names = ContinuousBatches(book), [str(number) for number in range(PLACES + 1)]

    def read(_: int) -> Any:
        return Arrival([Job(**{**vars(settings.defaults), **next(bodies)["instances"][0]})], list)

    batches.iterate(names, read)
    while engine.live_count < PLACES:
        time.sleep(0.01)
    engine.metrics.counts = journal = Journal()
    batches.iterate(names[1:], read)
    while "admitted" not in journal.names:
        time.sleep(0.01)
    book.close()
    watchdog.close()
    between = journal.names[journal.names.index("cancelled") : journal.names.index("admitted")]
    return between.count("unet_calls")


def _hang_ups(client: httpx.Client, url: str, pixels: int, rounds: int) -> list[Promise]:
    """As a client sees it, without a promise: the running step and the way through TorchServe count too."""
    found = [_hang_up(client, url, pixels, after=0.0)]
    for phase in PHASES * rounds:
        found.append(_hang_up(client, url, pixels, phase * found[-1][1]))
    waits, steps = zip(*found[1:], strict=True)
    name = f"the same as clients see it, with the running step and TorchServe, {pixels}x{pixels}"
    shares = tuple(wait / step for wait, step in found[1:])
    return [
        Promise(name, "s", waits, None),
        Promise(name, f"steps of {statistics.median(steps):.3f} s", shares, None),
    ]


def _hang_up(client: httpx.Client, url: str, pixels: int, after: float) -> tuple[float, float]:
    """Seconds from a hang-up to the step that draws the next in line, and seconds of such a step.

    The first is the client's time less the drawing time in the receipt, so the way through TorchServe is in
    it. The hang-up comes ``after`` seconds into a call, since headers leave between two calls. It is
    infinite where a place was free before the hang-up, because such a try says nothing.
    """
    drawing = _fill(client, url, pixels)
    waiting = _open(client, url, _body(SHORT, pixels))
    in_line = time.perf_counter()
    time.sleep(after)
    gone = time.perf_counter()
    drawing[0].close()
    answer = json.loads(waiting.read())
    answered = time.perf_counter()
    for one in drawing[1:]:
        one.close()
    time.sleep(0.5)  # until TorchServe has seen them go
    timings = answer["predictions"][0]["receipt"]["timings"]
    if timings["queue"] < gone - in_line:
        return math.inf, timings["denoise"] / SHORT
    return answered - gone - timings["denoise"] - timings["decode"], timings["denoise"] / SHORT


def _kills(client: httpx.Client, server: RunningServer, rounds: int) -> list[Promise]:
    found = [_kill(client, server) for _ in range(rounds)]
    ended, served = zip(*found, strict=True)
    return [
        Promise(f"worker killed: until the last of its {PLACES} clients is disconnected", "s", ended, 1.0),
        Promise("worker killed: until the next request has its picture", "s", served, math.inf),
    ]


def _kill(client: httpx.Client, server: RunningServer) -> tuple[float, float]:
    """Seconds from SIGKILL to the end of the last client, and to the answer of a request sent then."""
    drawing = _fill(client, server.predict_url, LARGE)
    (worker,) = server.worker_state().pids
    with ThreadPoolExecutor(PLACES) as readers:
        ends = [readers.submit(_end, one) for one in drawing]
        killed = time.perf_counter()
        psutil.Process(worker).kill()
        ended = max(end.result() for end in ends) - killed
    answer = client.post(server.predict_url, json=_body(SHORT, SMALL))
    served = time.perf_counter() - killed if answer.status_code == 200 else math.inf
    return ended, served


def _end(response: httpx.Response) -> float:
    """The time when the connection ends; a whole picture would mean that the worker was not killed."""
    try:
        response.read()
    except httpx.TransportError:
        return time.perf_counter()
    raise RuntimeError(f"drawn to its end: {response.text[:200]}")


def _fill(client: httpx.Client, url: str, pixels: int) -> list[httpx.Response]:
    """One long request in every place; each has sent its headers, so it is being drawn."""
    with ThreadPoolExecutor(PLACES) as callers:
        return list(callers.map(lambda _: _open(client, url, _body(LONG, pixels)), range(PLACES)))


def _open(client: httpx.Client, url: str, body: load.Body) -> httpx.Response:
    response = client.send(client.build_request("POST", url, json=body), stream=True)
    response.raise_for_status()
    return response


def _body(steps: int, pixels: int) -> load.Body:
    ask = next(traffic.equal(steps))["instances"][0]
    ask |= {"width": pixels, "height": pixels, "scheduler": "DDIM", "response": "full"}
    return {"instances": [ask]}
