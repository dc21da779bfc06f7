"""One UNet call for many images: rows, timesteps, guidance. Every image brings its own of each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Callable

import torch

from handler.engine.families.family import guide
from handler.engine.loras import UNetRows
from handler.engine.ticket import LiveImage
from handler.model.model import Model, Size, UNet


class Denoiser:
    """Predicts noise for images of one size; each call has ``rows_of(size)`` rows, or as many as it needs."""

    def __init__(self, model: Model, rows_of: Callable[[Size], int | None]) -> None:
        self._model = model
        self._rows_of = rows_of
        self._condition_width = model.guidance_width
        self._loras = UNetRows(model)

    def predict(self, images: Sequence[LiveImage], inputs: torch.Tensor) -> torch.Tensor:
        """From scaled latents (len(images), 4, h, w) to guided predictions of the same shape."""
        guided = [i for i, image in enumerate(images) if image.negative is not None]
        order = [*guided, *range(len(images))]  # negative rows first: the plain pipeline's order
        negative = [image.negative for image in images if image.negative is not None]
        texts = negative + [image.prompts.positive for image in images]
        timesteps = torch.tensor(
            [images[i].timestep for i in order], dtype=torch.float32, device=inputs.device
        )
        samples = _with_beside(images, inputs)[torch.tensor(order, device=inputs.device)]
        arguments = (samples, timesteps, torch.cat(texts), self._guidance_embedding(images))
        rows, loras = self._rows_of(images[0].size), [images[i].job.loras for i in order]
        outputs = self._loras.call(partial(_predict, rows), arguments, loras, rows)
        return self._guide(images, guided, outputs)

    def _guide(self, images: Sequence[LiveImage], guided: list[int], outputs: torch.Tensor) -> torch.Tensor:
        negative, positive = outputs[: len(guided)], outputs[len(guided) :]
        if not guided:
            return positive
        scales = torch.tensor([images[i].job.guidance_scale for i in guided], device=outputs.device)
        chosen = torch.tensor(guided, device=outputs.device)
        steered = guide(negative, positive[chosen], scales)
        return positive.to(steered.dtype).index_copy(0, chosen, steered)

    def _guidance_embedding(self, images: Sequence[LiveImage]) -> torch.Tensor | None:
        """Guidance as an input of the UNet, where it was distilled so (LCM); then no row is negative."""
        if self._condition_width is None:
            return None
        from diffusers import StableDiffusionPipeline

        scales = torch.tensor([image.job.guidance_scale - 1 for image in images])
        # The method uses nothing of its pipeline.
        embedding: torch.Tensor = StableDiffusionPipeline.get_guidance_scale_embedding(
            None, scales, embedding_dim=self._condition_width
        )
        return embedding.to(device=self._model.device, dtype=self._model.dtype)


def _predict(
    rows: int | None,
    unet: UNet,
    samples: torch.Tensor,
    timesteps: torch.Tensor,
    texts: torch.Tensor,
    condition: torch.Tensor | None,
) -> torch.Tensor:
    """The outputs of a call that has at least ``rows`` rows."""
    count = len(samples)
    if rows is not None:
        samples, timesteps, texts = (pad_rows(part, rows) for part in (samples, timesteps, texts))
        condition = None if condition is None else pad_rows(condition, rows)
    outputs = unet(
        samples, timesteps, encoder_hidden_states=texts, timestep_cond=condition, return_dict=False
    )
    return outputs[0][:count]


def _with_beside(images: Sequence[LiveImage], inputs: torch.Tensor) -> torch.Tensor:
    """The scaled latents with the channels that the UNet sees beside them; all of its images have them."""
    beside = [image.beside for image in images if image.beside is not None]
    return torch.cat([inputs, torch.cat(beside)], dim=1) if beside else inputs


def pad_rows(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Repeats the last row up to ``count`` of them: real values, so no kernel meets a special case."""
    return torch.cat([rows, rows[-1:].expand(count - len(rows), *rows.shape[1:])])
