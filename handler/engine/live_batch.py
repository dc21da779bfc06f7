"""The step: images that are being drawn are moved one timestep on, by one UNet call per latent size.

Which jobs come here is decided in ``admission``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Callable, Optional

import torch

from handler.contract.job import Failure, Job
from handler.engine.denoiser import Denoiser
from handler.engine.families.served import Families
from handler.engine.loras import check_loras
from handler.engine.memory.capacity import Capacity
from handler.engine.memory.elastic import BROKEN, NO_MEMORY, Elastic
from handler.engine.metrics import EngineMetrics
from handler.engine.options import EngineOptions
from handler.engine.pending_decodes import MOST_STALLS
from handler.engine.previews import Foreseen, PreviewPlan, plan_previews, predict_clean
from handler.engine.prompts import PromptEncoder
from handler.engine.sampler import SCHEDULER_ERRORS, Sampler, State, TimestepPlan
from handler.engine.samplers import Samplers
from handler.engine.ticket import LiveImage, Prompts, Ticket
from handler.engine.waiting import Waiting
from handler.engine.watchdog import end_if_gpu_is_lost
from handler.model.model import Model, Size

logger = logging.getLogger(__name__)

Begun = tuple[TimestepPlan, State, Optional[torch.Tensor], Optional[PreviewPlan]]
"""What a live image needs beside its texts; no channels beside the latent and no previews for most."""

SCHEDULER_FAILED = Failure(
    500, "scheduler_failed", "The scheduler failed on this picture; the server's log says why."
)


class LiveBatch:
    """Images between admission and their last step; ``finish`` takes those that fail on the way.

    ``clock`` is the engine's, in seconds.
    """

    def __init__(
        self,
        model: Model,
        options: EngineOptions,
        capacity: Capacity,
        metrics: EngineMetrics,
        finish: Callable[[Ticket, Failure], None],
        clock: Callable[[], float],
    ) -> None:
        self.images: list[LiveImage] = []
        self._foreseen: list[Foreseen] = []
        self._model, self._capacity, self._metrics = model, capacity, metrics
        self._finish, self._clock = finish, clock
        self._samplers = Samplers(model, options, capacity.most_live)
        self._families = Families(model)
        self._elastic = Elastic(model.device)
        self._texts = PromptEncoder(model, options.text_cache, one_by_one=options.strict)
        self._denoiser = Denoiser(model, capacity.unet_rows)

    def check(self, job: Job) -> Failure | None:
        """What can be said against the job before it is submitted: a 400, or None. For any thread."""
        known = check_loras(self._model, job) or self._families.check(job)
        return known or self._samplers.check(job)

    def encode(self, newcomers: Sequence[Waiting]) -> list[Prompts | Failure | None]:
        """The newcomers' texts, encoded together; None where memory has no room for one."""
        encode = partial(self._encode, alone=not self.images and len(newcomers) == 1)
        return self._elastic.run("text", newcomers, encode)

    def join(self, newcomer: Waiting, prompts: Prompts, now: float) -> Failure | None:
        """Begins the job's image as its family does, and gives it a place."""
        job, size = newcomer.job, self._capacity.size(newcomer.job)
        if impossible := self.check(job):
            return impossible
        begun = self._begin(newcomer, size)
        if isinstance(begun, Failure):
            if begun is NO_MEMORY:
                torch.cuda.empty_cache()
            return begun
        queued, listener = now - newcomer.arrived_at, newcomer.on_event
        self.images.append(LiveImage(newcomer.ticket, job, size, prompts, *begun, queued, now, listener))
        self.images[-1].tell_started()
        self._metrics.count("admitted")
        self._metrics.observe("queue_seconds", queued)
        return None

    def step(self) -> None:
        """One denoising step for every image."""
        sizes = dict.fromkeys(image.size for image in self.images)
        for group in [[image for image in self.images if image.size == size] for size in sizes]:
            self._denoise(group)

    def take_drawn(self) -> list[tuple[LiveImage, torch.Tensor]]:
        """Images that have done their last step leave, each with its latent (1, channels, h, w)."""
        drawn = [image for image in self.images if image.steps_left == 0]
        latents = [self._samplers.of(image.size).latent(image.state).clone() for image in drawn]
        for image in drawn:
            self._leave(image)
        return list(zip(drawn, latents))

    def take_foreseen(self) -> list[Foreseen]:
        """What the last step has predicted for previews."""
        foreseen, self._foreseen = self._foreseen, []
        return foreseen

    def remove(self, ticket: Ticket) -> bool:
        """Frees the job's place; whether it had one."""
        live = [image for image in self.images if image.ticket == ticket]
        for image in live:
            self._leave(image)
        return bool(live)

    def clear(self) -> list[Ticket]:
        """Forgets all images, whatever state a failed step has left them in."""
        tickets = [image.ticket for image in self.images]
        self.images, self._foreseen = [], []
        self.drop_unused()
        return tickets

    def drop_unused(self) -> None:
        """Frees the samplers of picture sizes that no live job has."""
        self._samplers.keep({image.size for image in self.images})

    def _begin(self, newcomer: Waiting, size: Size) -> Begun | Failure:
        """What a live image needs beside its texts, or why there is none."""
        job = newcomer.job
        try:
            sampler = self._samplers.of(size)
            start = self._families.start(job, self._samplers.scheduler(job), sampler.dtype)
            previews = plan_previews(job, start) if newcomer.on_event else None
            return (*sampler.join(job, start), start.beside, previews)
        except torch.cuda.OutOfMemoryError:
            return NO_MEMORY
        except SCHEDULER_ERRORS:
            logger.exception("a job could not begin")
            end_if_gpu_is_lost(self._model.device)
            return BROKEN

    def _encode(self, newcomers: Sequence[Waiting], alone: bool) -> list[Prompts]:
        return self._texts.encode([newcomer.job for newcomer in newcomers], alone)

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
        self._metrics.count("unet_calls")
        self._metrics.count("image_steps", len(images))
        return list(predictions.unsqueeze(1))

    def _advance(
        self, sampler: Sampler, images: Sequence[LiveImage], predictions: Sequence[torch.Tensor]
    ) -> None:
        foreseen = [
            self._foresee(sampler, image, row)
            for image, row in zip(images, predictions)
            if image.shows_preview
        ]
        try:
            problems = sampler.advance([image.state for image in images], torch.cat(list(predictions)))
        except torch.cuda.OutOfMemoryError:
            problems = None
        if problems is None:
            torch.cuda.empty_cache()
            for image in images:
                self._stall(image)
            return
        self._foreseen += [one for one in foreseen if one is not None]
        for image, problem in zip(images, problems):
            image.stalls = 0
            if problem is not None:
                logger.error("a scheduler failed: %s", problem)
                self._leave(image)
                self._finish(image.ticket, SCHEDULER_FAILED)
            else:
                image.tell_step(self._clock())

    def _foresee(self, sampler: Sampler, image: LiveImage, prediction: torch.Tensor) -> Foreseen | None:
        """The image after all its steps, as this step predicts it; None where memory was short."""
        plan, position = image.previews, image.state.position
        assert plan is not None
        try:
            inputs, level = sampler.inputs([image.state]), plan.levels[position]
            latent = predict_clean(inputs, prediction, level, plan.prediction_type, image.state.keep)
        except torch.cuda.OutOfMemoryError:
            return None
        return Foreseen(image, position + 1, latent)

    def _stall(self, image: LiveImage) -> None:
        """An image that memory has no room for now keeps its latent and tries again at the next step."""
        image.stalls += 1
        if image.stalls > MOST_STALLS:
            self._leave(image)
            self._finish(image.ticket, NO_MEMORY)

    def _leave(self, image: LiveImage) -> None:
        self.images.remove(image)
        self._samplers.of(image.size).leave(image.state)
