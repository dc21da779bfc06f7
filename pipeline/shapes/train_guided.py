"""Training the UNet and the text encoder on noised latents and on their own guided runs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.shapes import networks
from pipeline.shapes.guided_runs import ABREAST, GuidedRun
from pipeline.shapes.train_denoiser import Denoiser, move_average, spread_timesteps

if TYPE_CHECKING:
    import numpy as np
    import torch

    from pipeline.shapes.placed_latents import PlacedLatents
    from pipeline.shapes.schedule import Schedule

RUNS = 6
EMPTY_PROMPTS = 0.15
_IN_THE_MIDDLE = 0.8  # share of the noised latents whose shape is not a small one
_RECOGNISABLE = 0.02  # share of variance kept, from which guided noise should lead to the aim
_NOISED_WEIGHT = 2.0
# A small shape could be anywhere: learned from pure noise, it takes the model's certainty where any shape is.
_LATEST_SMALL = 0.6  # share of the timesteps in which small shapes are learned from noised latents
_STRONG = 6.5  # guidance 7.5 less 1


@dataclass
class _Batch:
    """Rows for the UNet: noised latents, then each run's pictures with text and without."""

    noisy: list[torch.Tensor]
    times: list[torch.Tensor]
    prompts: list[torch.Tensor]
    noise: torch.Tensor
    kept: list[float]


def train_guided(
    model: Denoiser,
    data: PlacedLatents,
    tokens: torch.Tensor,
    schedule: Schedule,
    random: np.random.Generator,
    report: Callable[[int, float], None],
) -> Denoiser:
    """Train ``model`` and return its averaged weights; ``tokens`` has the empty prompt, then all captions.

    ``schedule.batch`` counts the noised latents alone; the runs add 2 * RUNS * ABREAST rows.
    """
    import torch

    runs = [GuidedRun(data, random) for _ in range(RUNS)]
    average, signal = copy.deepcopy(model), networks.make_scheduler().alphas_cumprod
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.rate, betas=(0.9, 0.99), weight_decay=0.01)
    pacer = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.factor)
    for step in range(schedule.steps):
        batch = _noised(data, schedule.batch, signal, random)
        _add_runs(batch, runs)
        loss = _loss(_guesses(model, batch, tokens), batch, runs)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        pacer.step()
        optimizer.zero_grad()
        move_average(average, model, step)
        report(step, loss.item())
    return average


def _noised(data: PlacedLatents, count: int, signal: torch.Tensor, random: np.random.Generator) -> _Batch:
    import numpy as np
    import torch

    middle = data.places.middle
    captions = torch.from_numpy(random.integers(0, len(data.shapes), count))
    chosen = random.random(count) < _IN_THE_MIDDLE
    centred, small = random.integers(0, middle, count), random.integers(middle, len(data.places), count)
    clean = data.shapes[captions, torch.from_numpy(np.where(chosen, centred, small))]
    noise, times = torch.randn_like(clean), spread_timesteps(count)[torch.randperm(count)]
    times = torch.where(torch.from_numpy(chosen), times, (times * _LATEST_SMALL).long())
    kept = signal[times].view(-1, 1, 1, 1)
    prompts = torch.where(torch.rand(count) < EMPTY_PROMPTS, 0, captions + 1)
    return _Batch([kept.sqrt() * clean + (1 - kept).sqrt() * noise], [times.float()], [prompts], noise, [])


def _add_runs(batch: _Batch, runs: Sequence[GuidedRun]) -> None:
    import torch

    for run in runs:
        seen, time, kept = run.look()
        batch.noisy += [seen, seen]
        batch.times.append(torch.full((2 * ABREAST,), time))
        batch.prompts += [run.captions + 1, torch.zeros(ABREAST, dtype=torch.long)]
        batch.kept.append(kept)


def _guesses(model: Denoiser, batch: _Batch, tokens: torch.Tensor) -> torch.Tensor:
    import torch

    different, rows = torch.unique(torch.cat(batch.prompts), return_inverse=True)
    # Not [rows]: its gradient adds up in an order that changes from run to run with more than one thread.
    text = model.text_encoder(tokens[different]).last_hidden_state.index_select(0, rows)
    guesses: torch.Tensor = model.unet(
        torch.cat(batch.noisy), torch.cat(batch.times), encoder_hidden_states=text
    ).sample
    return guesses


def _loss(guesses: torch.Tensor, batch: _Batch, runs: Sequence[GuidedRun]) -> torch.Tensor:
    """The mean square errors of all rows; takes every run one step on."""
    plain = (guesses[: len(batch.noise)] - batch.noise).square().mean()
    pairs = guesses[len(batch.noise) :].view(len(runs), 2, ABREAST, 4, 8, 8)
    asked: torch.Tensor | float = 0.0
    unasked: torch.Tensor | float = 0.0
    mixed: torch.Tensor | float = 0.0
    for number, run in enumerate(runs):
        kept, (with_text, without) = batch.kept[number], pairs[number]
        goal, weight = _goal(run, batch.noisy[1 + 2 * number], with_text.detach(), kept)
        asked = asked + (weight * (with_text - goal).square()).mean()
        unasked = unasked + (weight * (without - goal).square()).mean()
        strength = run.guidance.view(-1, 1, 1, 1)
        guided = without + strength * (with_text - without)
        if kept > _RECOGNISABLE:
            share = (strength - 1) / strength / _STRONG
            mixed = mixed + (share * weight * (guided - goal).square()).mean()
        run.advance(guided.detach())
    return _NOISED_WEIGHT * plain + (asked + unasked + mixed) / len(runs)


def _goal(
    run: GuidedRun, seen: torch.Tensor, guess: torch.Tensor, kept: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The noise whose removal leads to the run's aim, and the weight of missing it.

    The weight makes it an error of the clean latents where little noise is left, and keeps latents that
    went far astray from ruling the batch.
    """
    clean = (seen - (1 - kept) ** 0.5 * guess) / kept**0.5
    goal = (seen - kept**0.5 * run.aim(clean, kept)) / (1 - kept) ** 0.5
    weight = min(1.0, (1 - kept) / kept) / goal.square().mean((1, 2, 3), keepdim=True).clamp(min=1)
    return goal, weight
