"""The training script on a plan of a few steps: it ends, goes on where it stopped, and writes the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from pipeline.shapes import networks
from pipeline.shapes.schedule import Schedule
from pipeline.shapes.train import Plan, train
from pipeline.shapes.train_autoencoder import start_quiet, train_autoencoder
from pipeline.shapes.train_denoiser import Denoiser, LatentSet, train_denoiser
from pipeline.shapes.training_set import Pictures, batches, draw_pictures
from pipeline.shapes.vocabulary import load_tokenizer, write_vocabulary

FEW = Schedule(steps=2, fall=1, batch=2, rate=1e-3, warm_up=1)


def test_a_short_run_writes_a_folder_that_draws(tmp_path: Path) -> None:
    plan = Plan(autoencoder=FEW, denoiser=FEW, pictures=1, latents=1)
    train(plan, tmp_path / "model", tmp_path / "work")
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "model")
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a red circle", num_inference_steps=2).images[0].size == (64, 64)

    first = (tmp_path / "model/unet/diffusion_pytorch_model.safetensors").read_bytes()
    train(plan, tmp_path / "again", tmp_path / "work")  # every stage is there already
    assert (tmp_path / "again/unet/diffusion_pytorch_model.safetensors").read_bytes() == first


def test_the_autoencoder_learns() -> None:
    torch.manual_seed(0)
    vae, losses = networks.make_autoencoder(), []
    start_quiet(vae)
    few = draw_pictures(1, 0)
    pictures = Pictures(few.pixels[:4], few.captions[:4])
    plan = Schedule(steps=24, fall=1, batch=4, rate=3e-3, warm_up=1)
    train_autoencoder(vae, pictures, plan, lambda step, loss: losses.append(loss))
    assert sum(losses[-3:]) < 0.75 * sum(losses[:3])
    assert vae.config.scaling_factor > 0


def test_the_denoiser_learns_and_its_average_lags(tmp_path: Path) -> None:
    torch.manual_seed(0)
    write_vocabulary(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    model = Denoiser(networks.make_denoiser(), networks.make_text_encoder(tokenizer))
    tokens = tokenizer(["", "a red circle"], padding="max_length", return_tensors="pt").input_ids
    data = LatentSet(torch.zeros(8, 4, 8, 8), torch.zeros(8, dtype=torch.long), tokens)
    losses: list[float] = []
    plan = Schedule(steps=14, fall=1, batch=8, rate=2e-3, warm_up=1)
    average = train_denoiser(model, data, plan, lambda step, loss, _: losses.append(loss))
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    weight, averaged = next(model.unet.parameters()), next(average.unet.parameters())
    assert not torch.equal(weight, averaged)


def test_batches_see_everything_once_before_anything_twice() -> None:
    feed = batches(10, 5)
    assert sorted(torch.cat([next(feed), next(feed)]).tolist()) == list(range(10))


@pytest.mark.parametrize(("step", "factor"), [(0, 0.1), (9, 1.0), (50, 1.0), (90, 0.5), (100, 0.01)])
def test_the_rate_warms_up_holds_and_falls(step: int, factor: float) -> None:
    assert Schedule(steps=100, fall=20, batch=1, rate=1.0, warm_up=10).factor(step) == pytest.approx(factor)
