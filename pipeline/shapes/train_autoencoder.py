"""Training the autoencoder: first both halves, then the decoder alone on noisy latents."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pipeline.shapes.networks import Autoencoder
from pipeline.shapes.training_set import Pictures, batches, to_model_range

if TYPE_CHECKING:
    import torch

    from pipeline.shapes.schedule import Schedule

_KL_WEIGHT = 5e-6
_FIRST_LOG_VARIANCE = -5.0
_LATENT_NOISE = 0.25  # most noise that the decoder learns to undo, in standard deviations of the latents

Loss = Callable[["torch.Tensor"], "torch.Tensor"]
Report = Callable[[int, float], None]


def start_quiet(vae: Autoencoder) -> None:
    """Let an untrained encoder be sure of its latents: unit variance would drown the first thousand steps."""
    import torch

    with torch.no_grad():
        vae.quant_conv.bias[4:] = _FIRST_LOG_VARIANCE
        vae.quant_conv.weight[4:] *= 0.1


def train_both(vae: Autoencoder, pictures: Pictures, schedule: Schedule, report: Report) -> None:
    """Train encoder and decoder, then store ``scaling_factor`` = 1 / standard deviation of the latents."""

    def loss(pixels: torch.Tensor) -> torch.Tensor:
        seen = vae.encode(pixels).latent_dist
        narrow: torch.Tensor = seen.kl().mean()
        return _difference(vae.decode(seen.sample()).sample, pixels) + _KL_WEIGHT * narrow

    _descend(vae.parameters(), loss, pictures, schedule, report)
    vae.register_to_config(scaling_factor=1 / _latent_spread(vae, pictures))


def train_decoder(vae: Autoencoder, pictures: Pictures, schedule: Schedule, report: Report) -> None:
    """Train the decoder alone, on latents with some noise: the UNet's are never quite those of pictures."""
    import torch

    spread = _LATENT_NOISE / vae.config.scaling_factor

    def loss(pixels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            latents = vae.encode(pixels).latent_dist.mean
            amount = torch.rand(len(latents), 1, 1, 1).square() * spread
        return _difference(vae.decode(latents + amount * torch.randn_like(latents)).sample, pixels)

    half = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    _descend(half, loss, pictures, schedule, report)


def _difference(drawn: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return (drawn - wanted).abs().mean() + (drawn - wanted).square().mean()


def _latent_spread(vae: Autoencoder, pictures: Pictures) -> float:
    import torch

    with torch.no_grad():
        sample = to_model_range(pictures.pixels[:672])
        return float(torch.cat([vae.encode(part).latent_dist.mean for part in torch.split(sample, 32)]).std())


def _descend(
    weights: Iterable[torch.nn.Parameter], loss: Loss, pictures: Pictures, schedule: Schedule, report: Report
) -> None:
    import torch

    weights = list(weights)
    optimizer = torch.optim.AdamW(weights, lr=schedule.rate, betas=(0.9, 0.99), weight_decay=0)
    pacer = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.factor)
    feed = batches(len(pictures.pixels), schedule.batch)
    for step in range(schedule.steps):
        lost = loss(to_model_range(pictures.pixels[next(feed)]))
        torch.autograd.backward(lost)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        pacer.step()
        optimizer.zero_grad()
        report(step, lost.item())
