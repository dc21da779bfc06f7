"""The vectorised samplers against diffusers' schedulers, latent by latent."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from diffusers import PNDMScheduler
from tiny import SCHEDULE, make_job

from handler.contract.job import Job
from handler.contract.schedulers import SCHEDULERS
from handler.engine.coefficients import TimestepPlans, is_linear
from handler.engine.families.family import Start
from handler.engine.linear import LinearSampler
from handler.engine.sampler import MakeScheduler, SchedulerSampler
from handler.engine.samplers import FreshSchedulers
from handler.model.model import Size
from handler.model.schedulers import make_scheduler

SIZE = Size(8, 8)


def noise_alone(job: Job, make: MakeScheduler) -> Start:
    """How text to image begins."""
    generator = torch.Generator().manual_seed(job.seed)
    scheduler = make(job.scheduler, job.num_inference_steps)
    noise = torch.randn(1, 4, *SIZE, generator=generator)
    return Start(scheduler, noise * scheduler.init_noise_sigma, generator)


def guess(latents: torch.Tensor, salt: int) -> torch.Tensor:
    """A prediction that depends on the latents without being linear in them."""
    return torch.sin(latents * (1 + salt % 3) + salt)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 50])
def test_all_rows_at_once_equal_each_scheduler_alone(steps: int, prediction_type: str) -> None:
    make = FreshSchedulers(PNDMScheduler.from_config({**SCHEDULE, "prediction_type": prediction_type}), "cpu")
    cpu = torch.device("cpu")
    jobs = [
        make_job(scheduler=name, seed=seed, num_inference_steps=steps) for seed, name in enumerate(SCHEDULERS)
    ]
    together = LinearSampler(TimestepPlans(make), (len(jobs), 4, SIZE), cpu, torch.float32)
    states = [together.join(job, noise_alone(job, make))[1] for job in jobs]
    alone = [SchedulerSampler(torch.float32) for _ in jobs]
    oracles = [sampler.join(job, noise_alone(job, make)) for sampler, job in zip(alone, jobs, strict=False)]
    for position in range(steps + 1):
        going = [i for i, (plan, _) in enumerate(oracles) if position < len(plan.timesteps)]
        if not going:
            break
        inputs = together.inputs([states[i] for i in going])
        wanted = torch.cat([alone[i].inputs([oracles[i][1]]) for i in going])
        # The same predictions for both, or a wild enough model would grow the last bits into differences.
        predictions = guess(wanted, position)
        together.advance([states[i] for i in going], predictions)
        for row, i in enumerate(going):
            name, (_, oracle) = jobs[i].scheduler, oracles[i]
            assert near(inputs[row], wanted[row]), f"{name}'s input at step {position} of {steps}"
            assert alone[i].advance([oracle], predictions[row : row + 1]) == [None]
            assert near(together.latent(states[i]), oracle.latent), f"{name} at step {position} of {steps}"


def near(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() <= 5e-6 * other.abs().max())


def test_clipping_samplers_are_known_not_to_be_linear() -> None:
    template = PNDMScheduler.from_config(SCHEDULE)
    assert all(is_linear(make_scheduler(name, template)) for name in SCHEDULERS)
    clipping = PNDMScheduler.from_config({**SCHEDULE, "clip_sample": True})
    assert not is_linear(make_scheduler("LCM", clipping))
    thresholding = PNDMScheduler.from_config({**SCHEDULE, "thresholding": True})
    assert not is_linear(make_scheduler("DPM++ 2M", thresholding))
    learned = PNDMScheduler.from_config({**SCHEDULE, "variance_type": "learned_range"})
    assert not is_linear(make_scheduler("DPM++ 2M", learned))


def test_who_cannot_join_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = TimestepPlans(FreshSchedulers(PNDMScheduler.from_config(SCHEDULE), "cpu"))
    sampler = LinearSampler(plans, (1, 4, SIZE), torch.device("cpu"), torch.float32)
    start = noise_alone(make_job(), plans._make_scheduler)
    wrong: dict[str, Any] = {"coefficients": None}
    right = plans.of(make_job(), None)
    monkeypatch.setattr(plans, "of", lambda *_: dataclasses.replace(right, **wrong))
    with pytest.raises(AttributeError):
        sampler.join(make_job(), start)
    monkeypatch.undo()
    _, state = sampler.join(make_job(), start)
    assert state.slot == 0
