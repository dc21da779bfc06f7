"""The engine: images join and leave a running batch at every denoising step.

``submit`` puts a job in the queue, ``step`` moves every live image one timestep on and returns what has
finished, ``cancel`` frees a place at once. Any thread may submit and withdraw, during a step too; all else
is for one thread. Nothing here knows TorchServe.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Callable

import torch

from handler.contract.drawing import OnProgress
from handler.contract.job import Failure, Job, Outcome, Picture
from handler.engine.decoder import NO_MEMORY, start_decoding
from handler.engine.denoiser import Denoiser
from handler.engine.memory.capacity import Capacity
from handler.engine.memory.elastic import BROKEN, Elastic
from handler.engine.memory.plan import MemoryPlan, used_bytes
from handler.engine.metrics import EngineMetrics
from handler.engine.options import EngineOptions
from handler.engine.pace import Pace
from handler.engine.pending_decodes import MOST_STALLS, PendingDecodes
from handler.engine.prompts import PromptEncoder
from handler.engine.sampler import SCHEDULER_ERRORS, Sampler
from handler.engine.samplers import Samplers
from handler.engine.ticket import LiveImage, Prompts, Ticket
from handler.engine.waiting import OVERLOADED, TOO_LATE, Waiting, WaitingLine
from handler.engine.watchdog import end_if_gpu_is_lost
from handler.model.model import Model

logger = logging.getLogger(__name__)

Finished = tuple[Ticket, Outcome]


class Engine:
    """Draws jobs step by step; ``plan`` says how many images the device holds."""

    def __init__(
        self,
        model: Model,
        options: EngineOptions,
        plan: MemoryPlan,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options = options
        self.metrics = EngineMetrics()
        self.pace = Pace()
        self._model, self._clock = model, clock
        self._capacity = Capacity(plan, options, model.latent_factor)
        self._numbers = itertools.count()
        self._queue_lock = threading.Lock()
        self._waiting = WaitingLine(options.max_queue, options.patience_seconds)
        self._joining: list[Ticket] = []  # out of the queue and not live yet
        self._live: list[LiveImage] = []
        self._finished: list[Finished] = []
        self._samplers = Samplers(model, options, self._capacity.most_live)
        self._elastic = Elastic(model.device)
        self._texts = PromptEncoder(model, options.text_cache, one_by_one=options.strict)
        self._denoiser = Denoiser(model, self._capacity.unet_rows)
        self._decodes = PendingDecodes(
            start_decoding(model, self._capacity.decode_slice, options.decode_thread), clock
        )

    # What a caller does

    def check(self, job: Job) -> Failure | None:
        """What can be said against the job before it is submitted: a 400, or None. For any thread."""
        return self._samplers.check(job)

    def submit(self, job: Job, on_progress: OnProgress | None = None) -> Ticket | Failure:
        """Takes the job into the queue, or refuses it with a 429 Failure when the queue is full."""
        with self._queue_lock:
            # A job in the queue while places are free has only not been stepped yet.
            free = self.options.max_live - len(self._live) - len(self._joining)
            if len(self._waiting) >= self.options.max_queue + free:
                self.metrics.count("refused")
                return dataclasses.replace(OVERLOADED, retry_after_seconds=self._retry_after_seconds())
            ticket = Ticket(next(self._numbers))
            self._waiting.join(ticket, job, self._clock(), on_progress)
            return ticket

    def withdraw(self, ticket: Ticket) -> bool:
        """Takes a job that still waits out of the queue; False where it does not. For any thread."""
        with self._queue_lock:
            if waiting := self._waiting.leave(ticket):
                self.metrics.count("cancelled")
        return waiting

    def cancel(self, ticket: Ticket) -> None:
        """Forgets the job, wherever it is; its place is free at once. Finished tickets are ignored."""
        live = [image for image in self._live if image.ticket == ticket]
        for image in live:
            self._leave(image)
        decoding = self._decodes.forget(ticket)
        self._finished = [finished for finished in self._finished if finished[0] != ticket]
        if live or decoding:
            with self._queue_lock:
                self.metrics.count("cancelled")
        else:
            self.withdraw(ticket)

    def step(self) -> list[Finished]:
        """One denoising step for every live image: one UNet call per size. Returns what has finished."""
        started = self._clock()
        with torch.inference_mode():
            self._admit()
            self.metrics.count("steps", bool(self._live))
            for images in self._groups():
                self._denoise(images)
            self._decode()
        return self._take_finished(started)

    def give_up(self) -> list[Finished]:
        """After an exception in ``step``: who was in it has failed, who waits goes on waiting.

        If nobody was in it, those who wait have failed, too: it would come again without end.
        """
        finished, self._finished = self._finished, []
        end_if_gpu_is_lost(self._model.device)
        lost = [*self._joining, *(image.ticket for image in self._live), *self._decodes.forget_all()]
        if not lost and not finished:
            with self._queue_lock:
                lost = [self._waiting.pop().ticket for _ in range(len(self._waiting))]
        self._joining, self._live = [], []
        self._samplers.keep(())
        known = {ticket for ticket, _ in finished}
        failed = [(ticket, BROKEN) for ticket in dict.fromkeys(lost) if ticket not in known]
        self.metrics.count("failed", len(failed))
        return [*finished, *failed]

    def close(self) -> None:
        self._decodes.close()

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._joining or self._live or self._decodes or self._finished)

    @property
    def live_count(self) -> int:
        return len(self._live)

    def gauges(self) -> dict[str, float]:
        """What is going on now."""
        return {
            "live_images": len(self._live),
            "waiting_jobs": len(self._waiting),
            "memory_bytes": used_bytes(self._model.device),
        }

    # Schedule

    def _admit(self) -> None:
        """Fills the free places from the queue; texts of all newcomers are encoded together."""
        now = self._clock()
        if not (newcomers := self._next_in_line(now)):
            return
        encode = partial(self._encode, alone=not self._live and len(newcomers) == 1)
        for newcomer, prompts in zip(newcomers, self._elastic.run("text", newcomers, encode)):
            texts = prompts or NO_MEMORY
            failure = texts if isinstance(texts, Failure) else self._join(newcomer, texts, now)
            if failure:
                self._finish(newcomer.ticket, failure)
            self._joining.remove(newcomer.ticket)

    def _next_in_line(self, now: float) -> list[Waiting]:
        newcomers: list[Waiting] = []
        with self._queue_lock:
            for late in self._waiting.expire(now):
                self._finish(late.ticket, TOO_LATE)
            while (first := self._waiting.first()) and self._has_place(newcomers, first.job):
                newcomers.append(self._waiting.pop())
            self._joining = [newcomer.ticket for newcomer in newcomers]
        return newcomers

    def _has_place(self, newcomers: Sequence[Waiting], job: Job) -> bool:
        taken = [image.job for image in self._live] + [newcomer.job for newcomer in newcomers]
        return self._capacity.fits(taken, job)

    def _encode(self, newcomers: Sequence[Waiting], alone: bool) -> list[Prompts]:
        return self._texts.encode([newcomer.job for newcomer in newcomers], alone)

    def _join(self, newcomer: Waiting, prompts: Prompts, now: float) -> Failure | None:
        job, size = newcomer.job, self._capacity.size(newcomer.job)
        if impossible := self.check(job):
            return impossible
        try:
            plan, state = self._samplers.of(size).join(job)
        except torch.cuda.OutOfMemoryError:
            return NO_MEMORY
        except SCHEDULER_ERRORS:
            logger.exception("a job could not join")
            end_if_gpu_is_lost(self._model.device)
            return BROKEN
        queued = now - newcomer.arrived_at
        self._live.append(
            LiveImage(newcomer.ticket, job, size, prompts, plan, state, queued, now, newcomer.on_progress)
        )
        self.metrics.count("admitted")
        self.metrics.observe("queue_seconds", queued)
        return None

    # Run

    def _groups(self) -> list[list[LiveImage]]:
        sizes = dict.fromkeys(image.size for image in self._live)
        return [[image for image in self._live if image.size == size] for size in sizes]

    def _denoise(self, images: Sequence[LiveImage]) -> None:
        sampler = self._samplers.of(images[0].size)
        predict = partial(self._predict, sampler)
        predictions = self._elastic.run(("unet", images[0].size), images, predict)
        stepped: list[tuple[LiveImage, torch.Tensor]] = []
        for image, row in zip(images, predictions):
            if row is None:
                self._stall(image)
            elif isinstance(row, Failure):
                self._leave(image)
                self._finish(image.ticket, row)
            else:
                stepped.append((image, row))
        if stepped:
            self._advance(sampler, [image for image, _ in stepped], [row for _, row in stepped])

    def _predict(self, sampler: Sampler, images: Sequence[LiveImage]) -> Sequence[torch.Tensor]:
        inputs = sampler.inputs([image.state for image in images])
        predictions = self._denoiser.predict(images, inputs)
        self.metrics.count("unet_calls")
        self.metrics.count("image_steps", len(images))
        return list(predictions.unsqueeze(1))

    def _advance(
        self, sampler: Sampler, images: Sequence[LiveImage], predictions: Sequence[torch.Tensor]
    ) -> None:
        try:
            problems = sampler.advance([image.state for image in images], torch.cat(list(predictions)))
        except torch.cuda.OutOfMemoryError:
            problems = None
        if problems is None:
            torch.cuda.empty_cache()
            for image in images:
                self._stall(image)
            return
        for image, problem in zip(images, problems):
            image.stalls = 0
            if problem is not None:
                failure = Failure(500, "scheduler_failed", f"The scheduler failed: {problem}")
                self._leave(image)
                self._finish(image.ticket, failure)
            elif image.on_progress is not None:
                image.report(image.on_progress, self._clock())

    def _stall(self, image: LiveImage) -> None:
        """An image that memory has no room for now keeps its latent and tries again at the next step."""
        image.stalls += 1
        if image.stalls > MOST_STALLS:
            self._leave(image)
            self._finish(image.ticket, NO_MEMORY)

    def _decode(self) -> None:
        """Sends drawn latents to be decoded and collects pictures that are ready."""
        drawn = [image for image in self._live if image.steps_left == 0]
        latents = [self._samplers.of(image.size).latent(image.state).clone() for image in drawn]
        for image in drawn:
            self._leave(image)
        self._decodes.put(list(zip(drawn, latents)))
        for ticket, outcome in self._decodes.take(idle=not self._live):
            if isinstance(outcome, Picture):
                self.metrics.observe("picture_seconds", sum(outcome.seconds.values()))
            self._finish(ticket, outcome)

    def _finish(self, ticket: Ticket, outcome: Outcome) -> None:
        self.metrics.count("failed" if isinstance(outcome, Failure) else "finished")
        self._finished.append((ticket, outcome))

    def _take_finished(self, started: float) -> list[Finished]:
        sizes = {image.size for image in self._live}
        if sizes:
            self.pace.record(self._clock() - started)
        self._samplers.keep(sizes)
        finished, self._finished = self._finished, []
        return finished

    def _leave(self, image: LiveImage) -> None:
        self._live.remove(image)
        self._samplers.of(image.size).leave(image.state)

    def _retry_after_seconds(self) -> int:
        live_steps = sum(image.steps_left for image in self._live)
        return self.pace.retry_after_seconds(self._waiting.steps, live_steps, self.options.max_live)
