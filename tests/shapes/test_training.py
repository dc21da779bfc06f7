"""The training script on a plan of a few steps: it ends, goes on where it stopped, and writes the folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from pipeline.shapes import networks
from pipeline.shapes.colour_codes import CODES, draw_coded, palette
from pipeline.shapes.drawing import draw_mask
from pipeline.shapes.guided_runs import ABREAST, GuidedRun
from pipeline.shapes.palette import COLOURS, SHAPES
from pipeline.shapes.placed_latents import PlacedLatents
from pipeline.shapes.placements import HALVES, Half, Places, placement_in, small_placement
from pipeline.shapes.schedule import Schedule
from pipeline.shapes.train import Plan, train
from pipeline.shapes.train_autoencoder import start_quiet, train_autoencoder
from pipeline.shapes.train_denoiser import Denoiser, LatentSet, train_denoiser
from pipeline.shapes.train_guided import train_guided
from pipeline.shapes.training_set import Pictures, batches, draw_pictures
from pipeline.shapes.vocabulary import load_tokenizer, write_vocabulary

MODEL = Path(__file__).parents[2] / "model_artifacts/shapes"
FEW = Schedule(steps=2, fall=1, batch=2, rate=1e-3, warm_up=1)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Two wait for each other all the time where other work runs beside them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


PLAN = Plan(FEW, FEW, FEW, FEW, pictures=1, latents=1, places=Places(1, 0, 1))
UNET = "unet/diffusion_pytorch_model.safetensors"


def test_a_short_run_writes_a_folder_that_draws_and_goes_on(tmp_path: Path) -> None:
    train(PLAN, tmp_path / "model", tmp_path / "work")
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "model")
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a red circle", num_inference_steps=2).images[0].size == (64, 64)

    first = (tmp_path / "model" / UNET).read_bytes()
    train(PLAN, tmp_path / "again", tmp_path / "work")  # every stage is there already
    assert (tmp_path / "again" / UNET).read_bytes() == first


def test_training_from_a_folder_goes_on_with_its_weights(tmp_path: Path) -> None:
    train(PLAN, tmp_path / "model", tmp_path / "work", start=MODEL)
    for path in (UNET, "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        before, after = (load_file(folder / path) for folder in (MODEL, tmp_path / "model"))
        changes = [(after[name] - before[name]).abs().max() for name in before]
        assert 0 < max(changes) < 0.05


def test_guided_training_gives_the_same_weights_twice(tmp_path: Path) -> None:
    trained = [guided_weights(tmp_path) for _ in range(2)]
    assert all(torch.equal(one, two) for one, two in zip(*trained, strict=True))


def guided_weights(folder: Path) -> list[torch.Tensor]:
    torch.manual_seed(0)
    write_vocabulary(folder)
    model = Denoiser(networks.make_denoiser(), networks.make_text_encoder(load_tokenizer(folder)))
    tokens = torch.randint(0, 500, (225, 16))
    plan = Schedule(steps=3, fall=1, batch=4, rate=1e-3, warm_up=1)
    losses: list[float] = []
    data = random_latents(Places(middle=2, small=1, half=1))
    average = train_guided(
        model, data, tokens, plan, np.random.default_rng(0), lambda step, loss: losses.append(loss)
    )
    assert len(losses) == 3
    return average.parameters()


def random_latents(places: Places) -> PlacedLatents:
    return PlacedLatents(torch.randn(224, len(places), 4, 8, 8), torch.randn(8, 4, 8, 8), places)


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


def test_every_colour_has_its_own_code_and_their_mean_is_zero() -> None:
    codes = torch.tensor([CODES[name] for name in COLOURS])
    assert len({tuple(code) for code in codes.tolist()}) == len(COLOURS)
    assert codes.sum(0).tolist() == [0, 0, 0, 0]
    assert set(codes.prod(1).tolist()) == {1}


def test_only_cells_of_one_colour_have_its_code() -> None:
    pixels, codes, plain = draw_coded(12, np.random.default_rng(0))
    cells = pixels.unfold(2, 8, 8).unfold(3, 8, 8).flatten(4)
    known = {tuple(colour): code for colour, code in zip(palette().tolist(), CODES.values(), strict=True)}
    seen = 0
    for row, down, right in np.ndindex(12, 8, 8):
        cell = cells[row, :, down, right]
        even = bool((cell == cell[:, :1]).all())
        assert even == bool(plain[row, 0, down, right])
        wanted = known[tuple(cell[:, 0].tolist())] if even else (0, 0, 0, 0)
        assert tuple(codes[row, :, down, right].tolist()) == wanted
        seen += even
    assert 0 < seen < 12 * 64


@pytest.mark.parametrize("half", HALVES)
def test_small_shapes_lie_whole_in_their_half(half: Half) -> None:
    random = np.random.default_rng(0)
    rows = {"lower": slice(32, 64), "upper": slice(32)}.get(half, slice(64))
    columns = {"right": slice(32, 64), "left": slice(32)}.get(half, slice(64))
    for shape in SHAPES:
        for _ in range(20):
            mask = draw_mask(shape, placement_in(half, random))
            assert mask[rows, columns].sum() == pytest.approx(mask.sum())


def test_small_shapes_lie_whole_in_the_picture() -> None:
    random = np.random.default_rng(0)
    masks = [draw_mask(shape, small_placement(random)) for shape in SHAPES for _ in range(20)]
    for mask in masks:
        assert max(mask[0].max(), mask[-1].max(), mask[:, 0].max(), mask[:, -1].max()) == 0


def test_places_are_numbered_as_they_are_drawn() -> None:
    places = Places(middle=3, small=2, half=2)
    drawn = places.draw(np.random.default_rng(0))
    assert len(drawn) == len(places) == 13
    assert all(place.x > 43 for place in (drawn[number] for number in places.within("right")))
    assert all(place.y < 21 for place in (drawn[number] for number in places.within("upper")))


def test_guided_runs_reach_the_aim_that_perfect_guesses_lead_to() -> None:
    """Every kind of run and every scheduler; the runs begin anew at their end."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    places = Places(middle=2, small=1, half=1)
    data = random_latents(places)
    runs = [GuidedRun(data, random) for _ in range(12)]
    ends = 0
    for _ in range(70):
        for run in runs:
            seen, time, kept = run.look()
            assert seen.shape == (ABREAST, 4, 8, 8)
            assert 0 <= time < 1000
            clean = run.aim((seen - (1 - kept) ** 0.5 * seen) / kept**0.5, kept)
            if time < 40 and kept > 0.98:
                ends += 1
                assert (seen / kept**0.5 - clean).square().mean() < 0.5
            run.advance((seen - kept**0.5 * clean) / (1 - kept) ** 0.5)
    assert ends > 20
