"""Train the embedded model: ``python -m pipeline.shapes.train [OUT] [--from FOLDER]``.

Four stages: the autoencoder, then the UNet and the text encoder on noised pictures, then the autoencoder's
codes, then the UNet and the text encoder on their own guided runs. ``--from`` starts with the third: FOLDER
is a model that has the first two. The same FOLDER gives the same weights on the same machine. Each stage is
kept in the work folder; a run that was cut off goes on with the stage it was in.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.shapes import networks
from pipeline.shapes.artifact import save_model
from pipeline.shapes.colour_codes import teach_codes
from pipeline.shapes.palette import all_captions
from pipeline.shapes.placed_latents import encode_places
from pipeline.shapes.placements import Places
from pipeline.shapes.schedule import Schedule
from pipeline.shapes.train_autoencoder import start_quiet, train_autoencoder
from pipeline.shapes.train_denoiser import Denoiser, cache_latents, train_denoiser
from pipeline.shapes.train_guided import train_guided
from pipeline.shapes.training_set import draw_pictures
from pipeline.shapes.vocabulary import load_tokenizer, write_vocabulary

MODEL = Path("model_artifacts/shapes")
WORK = Path("build/shapes")
_THREADS = 2  # another number adds in another order, and gives other weights


@dataclass(frozen=True)
class Plan:
    """The four stages, and how often every caption is drawn for the first, the second, and the last."""

    autoencoder: Schedule
    denoiser: Schedule
    codes: Schedule
    guided: Schedule
    pictures: int
    latents: int
    places: Places


PLAN = Plan(
    autoencoder=Schedule(steps=1350, fall=400, batch=16, rate=3e-3),
    denoiser=Schedule(steps=3600, fall=2300, batch=64, rate=1.5e-3),
    codes=Schedule(steps=900, fall=600, batch=16, rate=2e-3, warm_up=50),
    guided=Schedule(steps=3400, fall=1300, batch=40, rate=1e-3, warm_up=100),
    pictures=36,
    latents=40,
    places=Places(middle=36, small=8, half=6),
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


def train(plan: Plan, out: Path, work: Path, start: Path | None = None) -> None:
    """Train all stages, or with ``start`` the last two, from fixed seeds and write the model folder."""
    import torch

    torch.manual_seed(0)
    if start is None:
        vae = _kept(work / "autoencoder", lambda: _train_autoencoder(plan))
        denoiser = _trained_denoiser(plan, vae, work)
    else:
        vae, denoiser = _read_model(start)
    torch.manual_seed(0)
    vae = _kept(work / "codes", lambda: _taught(vae, plan))
    torch.manual_seed(0)
    denoiser = _train_guided(denoiser, vae, plan, work)
    save_model(out, denoiser.unet, denoiser.text_encoder, vae)


def _kept(folder: Path, make: Callable[[], networks.Autoencoder]) -> networks.Autoencoder:
    import diffusers

    kind: Any = diffusers.AutoencoderKL
    if not (folder / "config.json").is_file():
        make().save_pretrained(folder)
    return kind.from_pretrained(folder)


def _read_model(folder: Path) -> tuple[networks.Autoencoder, Denoiser]:
    import diffusers
    import torch

    kind: Any = diffusers.StableDiffusionPipeline
    parts = kind.from_pretrained(folder, torch_dtype=torch.float32)
    return parts.vae, Denoiser(parts.unet.train(), parts.text_encoder.train())


def _train_autoencoder(plan: Plan) -> networks.Autoencoder:
    vae = networks.make_autoencoder()
    start_quiet(vae)
    log = Log("autoencoder", plan.autoencoder.steps)
    train_autoencoder(vae, draw_pictures(plan.pictures, 0), plan.autoencoder, log)
    return vae


def _taught(vae: networks.Autoencoder, plan: Plan) -> networks.Autoencoder:
    teach_codes(vae, plan.codes, Log("codes", plan.codes.steps))
    return vae


def _trained_denoiser(plan: Plan, vae: networks.Autoencoder, work: Path) -> Denoiser:
    write_vocabulary(work / "tokenizer")
    tokenizer = load_tokenizer(work / "tokenizer")
    model = Denoiser(networks.make_denoiser(), networks.make_text_encoder(tokenizer))

    def learn() -> Denoiser:
        data = cache_latents(vae, draw_pictures(plan.latents, 1), tokenizer)
        log = Log("denoiser", plan.denoiser.steps)
        return train_denoiser(model, data, plan.denoiser, lambda step, loss, _: log(step, loss))

    return _kept_denoiser(work / "denoiser.pt", model, learn)


def _train_guided(model: Denoiser, vae: networks.Autoencoder, plan: Plan, work: Path) -> Denoiser:
    """Also gives ``vae``, and the one that is kept, their scaling factor."""
    import numpy as np

    write_vocabulary(work / "tokenizer")
    tokenizer = load_tokenizer(work / "tokenizer")
    prompts = ["", *(str(caption) for caption in all_captions())]
    tokens = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids

    def learn() -> Denoiser:
        random, log = np.random.default_rng(1), Log("guided", plan.guided.steps)
        data = encode_places(vae, plan.places, plan.places.draw(random))
        vae.save_pretrained(work / "codes")
        return train_guided(model, data, tokens, plan.guided, random, log)

    return _kept_denoiser(work / "guided.pt", model, learn)


def _kept_denoiser(kept: Path, model: Denoiser, learn: Callable[[], Denoiser]) -> Denoiser:
    import torch

    if not kept.is_file():
        average = learn()
        torch.save([part.state_dict() for part in (average.unet, average.text_encoder)], kept)
    unet, text_encoder = torch.load(kept)
    model.unet.load_state_dict(unet)
    model.text_encoder.load_state_dict(text_encoder)
    return model


if __name__ == "__main__":
    import torch

    torch.set_num_threads(_THREADS)
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path, nargs="?", default=MODEL)
    parser.add_argument("--from", type=Path, dest="start")
    given = parser.parse_args()
    train(PLAN, given.out, WORK, given.start)
