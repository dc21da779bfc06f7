"""Previews: how a picture would look, predicted in the middle of its steps, as a small file.

Nothing here changes an image that is being drawn, and nothing runs for one that shows no previews.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image

from handler.contract.encode import encode
from handler.contract.events import PREVIEW_FORMAT, Preview
from handler.contract.job import Job, PreviewCost
from handler.engine.families.family import Keep, Start

if TYPE_CHECKING:
    from handler.engine.ticket import LiveImage, Ticket

MOST_PIXELS = 256
"""The longer side of a preview; a larger picture is made smaller."""
QUALITY = 75
"""Of the jpeg file."""


@dataclass
class PreviewPlan:
    """When one image shows previews, and what a clean latent is predicted with.

    ``steps`` are numbers of steps, from 1; ``levels`` are the noise levels of all steps: the standard
    deviation of the noise over that of the picture. ``prediction_type`` is diffusers' word for what the UNet
    predicts.
    """

    steps: tuple[int, ...]
    levels: tuple[float, ...]
    prediction_type: str
    seconds: float = 0.0
    sent: int = 0

    @property
    def cost(self) -> PreviewCost:
        """What it has cost when the picture is drawn."""
        return PreviewCost(self.seconds, self.sent, len(self.steps) - self.sent)


@dataclass(frozen=True)
class Foreseen:
    """A predicted clean latent (1, channels, h, w) of an image, after its step of that number."""

    image: LiveImage
    step: int
    latent: torch.Tensor


def plan_previews(job: Job, start: Start) -> PreviewPlan | None:
    """When an image that begins so shows previews; None where none is asked for."""
    steps = preview_steps(len(start.timesteps), job.previews)
    if not steps:
        return None
    prediction_type = str(start.scheduler.config.get("prediction_type", "epsilon"))
    return PreviewPlan(steps, noise_levels(start), prediction_type)


def preview_steps(steps: int, previews: int) -> tuple[int, ...]:
    """The steps of ``steps`` that are shown: ``previews`` of them, evenly spaced, never the last one.

    Fewer where there are not so many.
    """
    shown = min(previews, steps - 1)
    return tuple(-(-number * steps // (shown + 1)) for number in range(1, shown + 1))


def noise_levels(start: Start) -> tuple[float, ...]:
    """Of each of the image's steps; from the scheduler's own sigmas where it has some."""
    scheduler, timesteps = start.scheduler, start.timesteps
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is None:
        kept = scheduler.alphas_cumprod[timesteps.long().cpu()].double()
        sigmas = ((1 - kept) / kept).sqrt()
    else:
        sigmas = sigmas[start.first or 0 :][: len(timesteps)]
    return tuple(float(sigma) for sigma in sigmas)


def predict_clean(
    inputs: torch.Tensor, prediction: torch.Tensor, level: float, prediction_type: str, keep: Keep | None
) -> torch.Tensor:
    """The clean latent (1, channels, h, w) that a step predicts, in fp32.

    ``inputs`` are what the UNet saw, which every scheduler scales so that picture and noise have variance 1
    together, and ``prediction`` is its guided answer. The part that inpainting keeps is the source's.
    """
    seen, said = inputs.float(), prediction.float()
    picture = (1 + level**2) ** -0.5
    noise = level * picture
    if prediction_type == "sample":
        clean = said
    elif prediction_type == "v_prediction":
        clean = picture * seen - noise * said
    else:
        clean = (seen - noise * said) / picture
    return clean if keep is None else torch.where(keep.mask > 0, clean, keep.latent.float())


def preview_file(image: Image.Image) -> bytes:
    """The picture as a small file."""
    small = image.copy()
    small.thumbnail((MOST_PIXELS, MOST_PIXELS))
    return encode(small, PREVIEW_FORMAT, QUALITY)


class PreviewLine:
    """Clean latents that wait to be decoded, one of each image at most, and the one that is decoded now."""

    def __init__(self) -> None:
        self.decoding: Foreseen | None = None
        self._waiting: dict[Ticket, Foreseen] = {}

    def wait(self, foreseen: Sequence[Foreseen], live: Collection[LiveImage]) -> None:
        """A newer latent takes the place of an older one; only those of ``live`` images are kept."""
        self._waiting.update({one.image.ticket: one for one in foreseen})
        if self._waiting:
            self._waiting = {name: one for name, one in self._waiting.items() if one.image in live}

    def next(self) -> Foreseen | None:
        """The one that is to be decoded now; None while another one is decoded."""
        if self.decoding is not None or not self._waiting:
            return None
        self.decoding = self._waiting.pop(next(iter(self._waiting)))
        return self.decoding

    def arrive(self, file: bytes | None, seconds: float, wanted: Collection[Ticket]) -> None:
        """The one that was decoded goes to its listener, where there is a file and its image is wanted."""
        shown, self.decoding = self.decoding, None
        if shown is None or (plan := shown.image.previews) is None:
            return
        plan.seconds += seconds
        listener = shown.image.on_event
        if file is None or listener is None or shown.image.ticket not in wanted:
            return
        plan.sent += 1
        text = base64.b64encode(file).decode("ascii")
        number = plan.steps.index(shown.step) + 1
        listener(Preview(number, len(plan.steps), shown.step, PREVIEW_FORMAT, text))
