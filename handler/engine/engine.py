"""The engine: images join and leave a running batch at every denoising step.

``submit`` puts a job in the queue, ``step`` moves every live image one timestep on and returns what has
finished, ``cancel`` frees a place at once. Any thread may submit and withdraw, during a step too; all else
is for one thread. Nothing here knows TorchServe.
"""

from __future__ import annotations

import time
from typing import Callable

import torch

from handler.contract.drawing import OnEvent
from handler.contract.job import Failure, Job, Outcome, Picture
from handler.engine.admission import Admission
from handler.engine.decoder import start_decoding
from handler.engine.families.pictures import fit_pictures
from handler.engine.live_batch import LiveBatch
from handler.engine.memory.capacity import Capacity
from handler.engine.memory.elastic import BROKEN, NO_MEMORY
from handler.engine.memory.plan import MemoryPlan, used_bytes
from handler.engine.metrics import EngineMetrics
from handler.engine.options import EngineOptions
from handler.engine.pace import Pace
from handler.engine.pending_decodes import PendingDecodes
from handler.engine.ticket import Ticket
from handler.engine.watchdog import end_if_gpu_is_lost
from handler.model.model import Model

Finished = tuple[Ticket, Outcome]


class Engine:
    """Draws jobs step by step; ``plan`` says how many images the device holds, ``clock`` is in seconds.

    ``admission`` decides which jobs are drawn, ``batch`` draws them, ``decodes`` makes pictures of latents.
    """

    def __init__(
        self,
        model: Model,
        options: EngineOptions,
        plan: MemoryPlan,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model, self.options, self.plan = model, options, plan
        self.metrics = EngineMetrics()
        self._clock = clock
        self._finished: list[Finished] = []
        capacity = Capacity(plan, options, model.latent_factor)
        self.batch = LiveBatch(model, options, capacity, self.metrics, self._finish, clock)
        self.admission = Admission(options, capacity, self.metrics, lambda: self.batch.images)
        decoding = start_decoding(model, capacity.decode_slice, options.decode_thread, options.safety)
        self.decodes = PendingDecodes(decoding, clock)

    def check(self, job: Job) -> Failure | None:
        """What can be said against the job before it is submitted: a 400, or None. For any thread."""
        return self.batch.check(job)

    def submit(self, job: Job, on_event: OnEvent | None = None) -> Ticket | Failure:
        """Takes the job into the queue, or refuses it with a 429 when the queue is full. For any thread.

        ``on_event`` hears of the queue now and of all else within ``step``, and may not raise; done and
        failed it does not hear, because the engine does not know whether the outcome is still wanted.
        """
        return self.admission.submit(fit_pictures(job), self._clock(), on_event)

    def withdraw(self, ticket: Ticket) -> bool:
        """Takes a job that still waits out of the queue; False where it does not. For any thread."""
        return self.admission.withdraw(ticket)

    def cancel(self, ticket: Ticket) -> None:
        """Forgets the job, wherever it is; its place is free at once. Finished tickets are ignored."""
        live = self.batch.remove(ticket)
        decoding = self.decodes.forget(ticket)
        self._finished = [finished for finished in self._finished if finished[0] != ticket]
        if live or decoding:
            self.admission.count_cancelled()
        else:
            self.withdraw(ticket)

    def step(self) -> list[Finished]:
        """One denoising step for every live image: one UNet call per size. Returns what has finished."""
        started = self._clock()
        with torch.inference_mode():
            self._admit()
            self.admission.tell_places(started)
            self.metrics.count("steps", bool(self.batch.images))
            self.batch.step()
            self._decode()
        if self.batch.images:
            self.pace.record(self._clock() - started)
        self.batch.drop_unused()
        finished, self._finished = self._finished, []
        return finished

    def give_up(self) -> list[Finished]:
        """After an exception in ``step``: the jobs that were in it have failed, the queue goes on waiting.

        If no job was in it, those in the queue have failed, too: it would come again without end.
        """
        finished, self._finished = self._finished, []
        end_if_gpu_is_lost(self.model.device)
        lost = [*self.admission.joining, *self.batch.clear(), *self.decodes.forget_all()]
        self.admission.joining = []
        if not lost and not finished:
            lost = self.admission.empty()
        known = {ticket for ticket, _ in finished}
        failed = [(ticket, BROKEN) for ticket in dict.fromkeys(lost) if ticket not in known]
        self.metrics.count("failed", len(failed))
        return [*finished, *failed]

    def close(self) -> None:
        """Ends the thread that decodes."""
        self.decodes.close()

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        admission = self.admission
        return bool(admission or admission.joining or self.batch.images or self.decodes or self._finished)

    @property
    def live_count(self) -> int:
        return len(self.batch.images)

    @property
    def pace(self) -> Pace:
        return self.admission.pace

    def gauges(self) -> dict[str, float]:
        """What is going on now."""
        return {
            "live_images": len(self.batch.images),
            "waiting_jobs": len(self.admission),
            "memory_bytes": used_bytes(self.model.device),
        }

    def _admit(self) -> None:
        """Fills the free places from the queue; texts of all newcomers are encoded together."""
        now = self._clock()
        if not (newcomers := self.admission.next_in_line(now, self._finish)):
            return
        for newcomer, prompts in zip(newcomers, self.batch.encode(newcomers)):
            texts = prompts or NO_MEMORY
            failure = texts if isinstance(texts, Failure) else self.batch.join(newcomer, texts, now)
            if failure:
                self._finish(newcomer.ticket, failure)
            self.admission.joining.remove(newcomer.ticket)

    def _decode(self) -> None:
        """Sends drawn latents to be decoded and collects pictures that are ready."""
        self.decodes.put(self.batch.take_drawn())
        foreseen = self.batch.take_foreseen()
        # A half-drawn picture can pass a safety check that the finished one fails.
        if self.model.safety_checker is None or self.options.safety == "send":
            self.decodes.put_previews(foreseen, self.batch.images)
        for ticket, outcome in self.decodes.take(idle=not self.batch.images):
            if isinstance(outcome, Picture):
                self.metrics.observe("picture_seconds", sum(outcome.seconds.values()))
            self._finish(ticket, outcome)

    def _finish(self, ticket: Ticket, outcome: Outcome) -> None:
        self.metrics.count("failed" if isinstance(outcome, Failure) else "finished")
        self._finished.append((ticket, outcome))
