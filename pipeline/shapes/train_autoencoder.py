"""Training the autoencoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.shapes.networks import Autoencoder
from pipeline.shapes.training_set import Pictures, batches, to_model_range

if TYPE_CHECKING:
    import torch

    from pipeline.shapes.schedule import Schedule

_KL_WEIGHT = 5e-6
_FIRST_LOG_VARIANCE = -5.0

Report = Callable[[int, float], None]


def start_quiet(vae: Autoencoder) -> None:
    """Let an untrained encoder be sure of its latents: unit variance would drown the first thousand steps."""
    import torch

    with torch.no_grad():
        vae.quant_conv.bias[4:] = _FIRST_LOG_VARIANCE
        vae.quant_conv.weight[4:] *= 0.1


def train_autoencoder(vae: Autoencoder, pictures: Pictures, schedule: Schedule, report: Report) -> None:
    """Train encoder and decoder, then store ``scaling_factor`` = 1 / standard deviation of the latents."""
    import torch

    optimizer = torch.optim.AdamW(vae.parameters(), lr=schedule.rate, betas=(0.9, 0.99), weight_decay=0)
    pacer = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.factor)
    feed = batches(len(pictures.pixels), schedule.batch)
    for step in range(schedule.steps):
        loss = _loss(vae, to_model_range(pictures.pixels[next(feed)]))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        pacer.step()
        optimizer.zero_grad()
        report(step, loss.item())
    vae.register_to_config(scaling_factor=1 / _latent_spread(vae, pictures))


def _loss(vae: Autoencoder, pixels: torch.Tensor) -> torch.Tensor:
    seen = vae.encode(pixels).latent_dist
    missed = vae.decode(seen.sample()).sample - pixels
    total: torch.Tensor = missed.abs().mean() + missed.square().mean() + _KL_WEIGHT * seen.kl().mean()
    return total


def _latent_spread(vae: Autoencoder, pictures: Pictures) -> float:
    import torch

    with torch.no_grad():
        sample = to_model_range(pictures.pixels[:672])
        return float(torch.cat([vae.encode(part).latent_dist.mean for part in torch.split(sample, 32)]).std())
