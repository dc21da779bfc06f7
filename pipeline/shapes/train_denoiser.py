"""Training the UNet and the text encoder on cached latents."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.shapes import networks
from pipeline.shapes.palette import all_captions
from pipeline.shapes.training_set import Pictures, batches, to_model_range

if TYPE_CHECKING:
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer

    from pipeline.shapes.schedule import Schedule

EMPTY_PROMPTS = 0.1  # share of prompts left empty, for classifier-free guidance
_AVERAGE = 0.998  # decay of the averaged weights, a step


@dataclass
class Denoiser:
    """The two networks that learn together."""

    unet: networks.Unet
    text_encoder: CLIPTextModel

    def parameters(self) -> list[torch.Tensor]:
        return [*self.unet.parameters(), *self.text_encoder.parameters()]


@dataclass(frozen=True)
class LatentSet:
    """Scaled latents (n, 4, 8, 8), their caption numbers, and token ids: row 0 empty, row i+1 caption i."""

    latents: torch.Tensor
    captions: torch.Tensor
    tokens: torch.Tensor


def cache_latents(vae: networks.Autoencoder, pictures: Pictures, tokenizer: CLIPTokenizer) -> LatentSet:
    """Run the autoencoder once over all pictures, so that training never does."""
    import torch

    with torch.no_grad():
        means = [
            vae.encode(to_model_range(part)).latent_dist.mean for part in torch.split(pictures.pixels, 64)
        ]
    prompts = ["", *(str(caption) for caption in all_captions())]
    tokens = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return LatentSet(torch.cat(means) * vae.config.scaling_factor, pictures.captions, tokens)


def spread_timesteps(count: int) -> torch.Tensor:
    """Spread evenly over a batch; half of them towards the noisy end, where the prompt decides."""
    import torch

    even = (torch.arange(count) + torch.rand(count)) / count
    even = torch.where(torch.arange(count) % 2 == 0, even, even.sqrt())
    return (even * 1000).long().clamp(max=999)


def denoising_loss(
    model: Denoiser, data: LatentSet, batch: torch.Tensor, signal: torch.Tensor
) -> torch.Tensor:
    """The mean square error of one batch's guessed noise; ``signal`` is the scheduler's alphas_cumprod."""
    import torch

    clean, noise, steps = data.latents[batch], torch.randn(len(batch), 4, 8, 8), spread_timesteps(len(batch))
    kept = signal[steps].view(-1, 1, 1, 1)
    noisy = kept.sqrt() * clean + (1 - kept).sqrt() * noise
    rows = torch.where(torch.rand(len(batch)) < EMPTY_PROMPTS, 0, data.captions[batch] + 1)
    text = model.text_encoder(data.tokens[rows]).last_hidden_state
    guess: torch.Tensor = model.unet(noisy, steps, encoder_hidden_states=text).sample
    return (guess - noise).square().mean()


def move_average(average: Denoiser, model: Denoiser, step: int) -> None:
    """Move the averaged weights towards ``model``; the first steps count more."""
    import torch

    weight = 1 - min(_AVERAGE, (1 + step) / (10 + step))
    with torch.no_grad():
        torch._foreach_lerp_(average.parameters(), model.parameters(), weight)


def train_denoiser(
    model: Denoiser, data: LatentSet, schedule: Schedule, report: Callable[[int, float, Denoiser], None]
) -> Denoiser:
    """Train ``model`` and return its averaged weights; ``report`` gets step, loss and the average so far."""
    import torch

    average = copy.deepcopy(model)
    signal = networks.make_scheduler().alphas_cumprod
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.rate, betas=(0.9, 0.99), weight_decay=0.01)
    pacer = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.factor)
    feed = batches(len(data.latents), schedule.batch)
    for step in range(schedule.steps):
        loss = denoising_loss(model, data, next(feed), signal)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        pacer.step()
        optimizer.zero_grad()
        move_average(average, model, step)
        report(step, loss.item(), average)
    return average
