"""Sends requests to one URL: closed (N clients that wait for their answers) or open (arrivals at a rate)."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

Body = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """The outcome of one request: seconds since the load began, HTTP status (0: no answer), step count."""

    sent: float
    finished: float
    status: int
    num_inference_steps: int

    @property
    def seconds(self) -> float:
        return self.finished - self.sent

    @property
    def good(self) -> bool:
        return self.status == 200


def throughput(answers: Sequence[Answer]) -> float:
    """Good answers per second, from the first request to the last answer."""
    good = [answer for answer in answers if answer.good]
    return len(good) / (max(a.finished for a in good) - min(a.sent for a in answers)) if good else 0.0


def median_seconds(answers: Sequence[Answer], num_inference_steps: int | None = None) -> float:
    """The median latency of the good answers, of one step count or of all."""
    chosen = [a.seconds for a in answers if a.good and num_inference_steps in (None, a.num_inference_steps)]
    return statistics.median(chosen) if chosen else float("inf")


def run_closed(url: str, bodies: Iterator[Body], clients: int, requests: int) -> list[Answer]:
    """``clients`` clients send ``requests`` requests in all; each waits for its answer before the next."""
    return asyncio.run(_closed(url, bodies, clients, requests))


def run_open(url: str, bodies: Iterator[Body], rate: float, seconds: float, seed: int = 0) -> list[Answer]:
    """Poisson arrivals at ``rate`` per second for ``seconds``, which do not wait for answers."""
    return asyncio.run(_open(url, bodies, rate, seconds, random.Random(seed)))


async def _closed(url: str, bodies: Iterator[Body], clients: int, requests: int) -> list[Answer]:
    begin, left, answers = time.perf_counter(), iter(range(requests)), list[Answer]()

    async def client() -> None:
        for _ in left:
            answers.append(await _ask(session, url, next(bodies), begin))

    async with _session() as session:
        await asyncio.gather(*(client() for _ in range(clients)))
    return answers


async def _open(
    url: str, bodies: Iterator[Body], rate: float, seconds: float, chance: random.Random
) -> list[Answer]:
    begin, tasks, at = time.perf_counter(), list[asyncio.Task[Answer]](), 0.0
    async with _session() as session:
        while (at := at + chance.expovariate(rate)) < seconds:
            await asyncio.sleep(max(0.0, begin + at - time.perf_counter()))
            tasks.append(asyncio.create_task(_ask(session, url, next(bodies), begin)))
        return list(await asyncio.gather(*tasks))


def _session() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=300.0, limits=httpx.Limits(max_connections=512))


async def _ask(session: httpx.AsyncClient, url: str, body: Body, begin: float) -> Answer:
    steps = body["instances"][0].get("num_inference_steps", 0)
    sent = time.perf_counter() - begin
    try:
        response = await session.post(url, json=body)
        status = response.status_code
        if status == 200 and b'"error"' in response.content[:400]:  # an error after the headers were sent
            status = 500
    except httpx.HTTPError:
        status = 0
    return Answer(sent, time.perf_counter() - begin, status, steps if isinstance(steps, int) else 0)
