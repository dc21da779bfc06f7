"""Jobs to pictures with StableDiffusionPipeline, equal jobs in one call (imports torch)."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from handler.job import Failure, Job, Outcome, Picture
from handler.model import Model
from handler.schedulers import make_scheduler

logger = logging.getLogger(__name__)

# What torch, diffusers and transformers raise for a call that cannot be done.
DRAWING_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError)

FAILED = Failure(500, "internal", "drawing this picture failed; the server's log says why")
NO_MEMORY = Failure(503, "out_of_memory", "this picture does not fit into the device's memory")


class Generator:
    """Draws jobs; those of equal size, steps, guidance and scheduler share a call of at most ``max_batch``.

    A seed gives StableDiffusionPipeline's picture for ``torch.Generator("cpu").manual_seed(seed)``.
    """

    def __init__(self, model: Model, max_batch: int) -> None:
        self._model = model
        self._max_batch = max_batch

    def generate(self, jobs: Sequence[Job]) -> list[Outcome]:
        """One outcome per job, in order; a job that fails is a Failure and costs nobody else a picture."""
        started = time.monotonic()
        outcomes: dict[int, Outcome] = {}
        for positions in _groups(jobs, self._max_batch):
            drawn = self._draw_group([jobs[position] for position in positions], started)
            outcomes.update(zip(positions, drawn))
        return [outcomes[position] for position in range(len(jobs))]

    def _draw_group(self, jobs: Sequence[Job], started: float) -> Sequence[Outcome]:
        try:
            return self._draw(jobs, started)
        except torch.cuda.OutOfMemoryError:
            logger.warning("no memory for %d pictures of %dx%d", len(jobs), jobs[0].width, jobs[0].height)
        except DRAWING_ERRORS:
            logger.exception("drawing %d pictures failed", len(jobs))
            return [FAILED] * len(jobs)
        # Outside the handler, so that the failed call's tensors are free.
        torch.cuda.empty_cache()
        if len(jobs) == 1:
            return [NO_MEMORY]
        half = len(jobs) // 2
        return [*self._draw_group(jobs[:half], started), *self._draw_group(jobs[half:], started)]

    def _draw(self, jobs: Sequence[Job], started: float) -> list[Outcome]:
        """Draw equal jobs in one pipeline call; may raise anything that torch raises."""
        first, begun = jobs[0], time.monotonic()
        denoised = begun

        def mark_step(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            nonlocal denoised
            denoised = time.monotonic()
            return {}

        images = self._pipeline(first.scheduler)(
            prompt=[job.prompt for job in jobs],
            negative_prompt=[job.negative_prompt for job in jobs],
            num_inference_steps=first.num_inference_steps,
            guidance_scale=first.guidance_scale,
            width=first.width,
            height=first.height,
            generator=[torch.Generator("cpu").manual_seed(job.seed) for job in jobs],
            callback_on_step_end=mark_step,
            callback_on_step_end_tensor_inputs=[],
        ).images
        ended = time.monotonic()
        seconds = {"queue": begun - started, "denoise": denoised - begun, "decode": ended - denoised}
        return [Picture(image, seconds) for image in images]

    def _pipeline(self, scheduler: str) -> Any:
        """A pipeline around the loaded parts; making one costs half a millisecond and shares no state."""
        from diffusers import StableDiffusionPipeline

        model = self._model
        pipeline: Any = StableDiffusionPipeline(  # type: ignore[no-untyped-call]
            vae=model.vae,
            text_encoder=model.text_encoder,
            tokenizer=model.tokenizer,
            unet=model.unet,
            scheduler=make_scheduler(scheduler, model.scheduler),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def _groups(jobs: Sequence[Job], max_batch: int) -> Iterator[list[int]]:
    """Positions of jobs that can share one call."""
    equal: dict[tuple[Any, ...], list[int]] = {}
    for position, job in enumerate(jobs):
        key = (job.width, job.height, job.num_inference_steps, job.guidance_scale, job.scheduler)
        equal.setdefault(key, []).append(position)
    for positions in equal.values():
        for start in range(0, len(positions), max_batch):
            yield positions[start : start + max_batch]
