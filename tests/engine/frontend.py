"""Drives a RequestBook as TorchServe's frontend does, and holds UNet calls up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import torch
from tiny import layers, make_job

from handler.contract.job import Failure, Job, Outcome
from handler.doors.torchserve.continuous import Arrival, ContinuousBatches, ReplyChunk
from handler.doors.torchserve.request_book import RequestBook
from handler.engine.runner import Runner

Answer = list[Outcome | None]


class Gate:
    """Stands before every UNet call: notes its rows, and from ``shut`` on lets none pass until ``let``."""

    def __init__(self, drawing: Runner | RequestBook[Answer]) -> None:
        self.rows: list[int] = []
        self._is_shut = False
        self._passes, self._waiting = threading.Semaphore(0), threading.Semaphore(0)
        self._hook = layers(drawing.engine.model.unet).register_forward_pre_hook(self._pass)

    def shut(self) -> None:
        self._is_shut = True

    def wait(self) -> None:
        """Returns when a call stands before it."""
        assert self._waiting.acquire(timeout=60)

    def let(self, calls: int) -> None:
        """Returns when so many have passed and the next one stands before it."""
        for _ in range(calls):
            self._passes.release()
            self.wait()

    def open(self) -> None:
        self._is_shut = False
        self._passes.release(1000)
        self._hook.remove()

    def _pass(self, _: object, inputs: tuple[torch.Tensor, ...]) -> None:
        self.rows.append(len(inputs[0]))
        if self._is_shut:
            self._waiting.release()
            assert self._passes.acquire(timeout=60)


def long_job(seed: int = 7) -> Job:
    return make_job(num_inference_steps=900, scheduler="DDIM", seed=seed)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def codes(answer: Answer) -> list[str]:
    return [outcome.code if isinstance(outcome, Failure) else "picture" for outcome in answer if outcome]


class Frontend:
    """Calls like TorchServe's: every request again until its last chunk, under a name of its own."""

    def __init__(self, book: RequestBook[Answer]) -> None:
        self.batches = ContinuousBatches(book)
        self.names: list[str] = []
        self.chunks: dict[str, list[ReplyChunk[Answer]]] = {}

    def call(self, **arriving: Sequence[Job] | str) -> None:
        self.names += arriving

        def read(index: int) -> Arrival[Answer] | Answer:
            given = arriving[self.names[index]]  # asking again about an old request is a KeyError
            return [Failure(400, given, "")] if isinstance(given, str) else Arrival(given, list)

        chunks = self.batches.iterate(self.names, read)
        for name, chunk in zip(self.names, chunks, strict=True):
            self.chunks.setdefault(name, []).append(chunk)
        self.names = [name for name, chunk in zip(self.names, chunks, strict=True) if chunk.stop is False]

    def hang_up(self, name: str) -> None:
        self.names.remove(name)

    def draws_a_picture(self) -> bool:
        """Whether a new request, asked to its end, has one."""
        self.call(next=[make_job(num_inference_steps=1, scheduler="DDIM")])
        while self.names:
            self.call()
        reply = self.chunks["next"][-1].reply
        return reply is not None and codes(reply) == ["picture"]
