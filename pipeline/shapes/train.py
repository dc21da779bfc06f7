"""Train the embedded model: ``python -m pipeline.shapes.train [OUT]``.

Each stage is kept in the work folder; a run that was cut off goes on with the stage it was in.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.shapes import networks
from pipeline.shapes.artifact import save_model
from pipeline.shapes.schedule import Schedule
from pipeline.shapes.train_autoencoder import start_quiet, train_autoencoder
from pipeline.shapes.train_denoiser import Denoiser, cache_latents, train_denoiser
from pipeline.shapes.training_set import draw_pictures
from pipeline.shapes.vocabulary import load_tokenizer, write_vocabulary

MODEL = Path("model_artifacts/shapes")
WORK = Path("build/shapes")


@dataclass(frozen=True)
class Plan:
    """The two stages, and how often every caption is drawn for the autoencoder and for the UNet."""

    autoencoder: Schedule
    denoiser: Schedule
    pictures: int
    latents: int


PLAN = Plan(
    autoencoder=Schedule(steps=1350, fall=400, batch=16, rate=3e-3),
    denoiser=Schedule(steps=3600, fall=2300, batch=64, rate=1.5e-3),
    pictures=36,
    latents=40,
)


class Log:
    """Prints step, loss and time left of one stage, every fiftieth step."""

    def __init__(self, stage: str, steps: int) -> None:
        self.stage, self.steps, self.began, self.losses = stage, steps, time.monotonic(), list[float]()

    def __call__(self, step: int, loss: float) -> None:
        self.losses.append(loss)
        if (step + 1) % 50 and step + 1 < self.steps:
            return
        spent = time.monotonic() - self.began
        left = spent / (step + 1) * (self.steps - step - 1)
        mean = sum(self.losses) / len(self.losses)
        sys.stdout.write(
            f"{self.stage} {step + 1}/{self.steps} loss {mean:.4f}, {spent:.0f} s, {left:.0f} s left\n"
        )
        sys.stdout.flush()
        self.losses.clear()


def train(plan: Plan, out: Path, work: Path) -> None:
    """Train all stages from fixed seeds and write the model folder."""
    import torch

    torch.manual_seed(0)
    vae = _kept(work / "autoencoder", lambda: _train_autoencoder(plan))
    denoiser = _trained_denoiser(plan, vae, work)
    save_model(out, denoiser.unet, denoiser.text_encoder, vae)


def _kept(folder: Path, make: Callable[[], networks.Autoencoder]) -> networks.Autoencoder:
    import diffusers

    kind: Any = diffusers.AutoencoderKL
    if not (folder / "config.json").is_file():
        make().save_pretrained(folder)
    return kind.from_pretrained(folder)


def _train_autoencoder(plan: Plan) -> networks.Autoencoder:
    vae = networks.make_autoencoder()
    start_quiet(vae)
    log = Log("autoencoder", plan.autoencoder.steps)
    train_autoencoder(vae, draw_pictures(plan.pictures, 0), plan.autoencoder, log)
    return vae


def _trained_denoiser(plan: Plan, vae: networks.Autoencoder, work: Path) -> Denoiser:
    import torch

    write_vocabulary(work / "tokenizer")
    tokenizer = load_tokenizer(work / "tokenizer")
    model = Denoiser(networks.make_denoiser(), networks.make_text_encoder(tokenizer))
    kept = work / "denoiser.pt"
    if not kept.is_file():
        data = cache_latents(vae, draw_pictures(plan.latents, 1), tokenizer)
        log = Log("denoiser", plan.denoiser.steps)
        average = train_denoiser(model, data, plan.denoiser, lambda step, loss, _: log(step, loss))
        torch.save([part.state_dict() for part in (average.unet, average.text_encoder)], kept)
    unet, text_encoder = torch.load(kept)
    model.unet.load_state_dict(unet)
    model.text_encoder.load_state_dict(text_encoder)
    return model


if __name__ == "__main__":
    train(PLAN, Path(sys.argv[1]) if sys.argv[1:] else MODEL, WORK)
