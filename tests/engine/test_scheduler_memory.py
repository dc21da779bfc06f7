"""Diffusers' own schedulers that run out of memory: the step is tried again, from where it began."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import diffusers
import pytest
import torch
from driving import draw, pixels
from tiny import make_job

from handler.engine.engine import Engine
from handler.engine.memory import MemoryPlan
from handler.engine.options import EngineOptions
from handler.model import Model
from handler.schedulers import SCHEDULERS


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_without_memory_is_waited_for_and_draws_the_same_pictures(
    model: Model, plan: MemoryPlan, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Diffusers' own schedulers, out of memory after they have changed their state and drawn their noise."""
    jobs = [make_job(seed=seed, scheduler=name, num_inference_steps=6) for seed in range(3)]
    wanted = draw(Engine(model, EngineOptions(), plan), jobs)
    kind = getattr(diffusers, SCHEDULERS[name].class_name)
    calls, step = itertools.count(), kind.step

    @functools.wraps(step)
    def short(*arguments: Any, **named: Any) -> Any:
        stepped = step(*arguments, **named)
        if next(calls) in (1, 4, 9):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory (injected)")
        return stepped

    monkeypatch.setattr(kind, "step", short)
    for got, want in zip(draw(Engine(model, EngineOptions(), plan), jobs), wanted, strict=True):
        assert torch.equal(pixels(got), pixels(want))
