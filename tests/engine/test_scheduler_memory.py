"""Diffusers' own schedulers that raise: short of memory they are stepped again, else their picture fails."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import diffusers
import pytest
import torch
from driving import draw, nearly_equal, pixels
from tiny import make_job

from handler.contract.schedulers import SCHEDULERS
from handler.engine.engine import Engine
from handler.engine.live_batch import SCHEDULER_FAILED
from handler.engine.memory.plan import MemoryPlan
from handler.engine.options import EngineOptions
from handler.model.model import Model


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


def test_a_scheduler_that_raises_fails_its_own_picture_and_tells_the_log_why(
    model: Model, plan: MemoryPlan, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = [make_job(seed=seed, scheduler="DDIM", num_inference_steps=6) for seed in range(2)]
    (_, wanted) = draw(Engine(model, EngineOptions(), plan), jobs)
    calls, step = itertools.count(), diffusers.DDIMScheduler.step

    @functools.wraps(step)
    def broken(*arguments: Any, **named: Any) -> Any:
        if next(calls) == 2:
            raise RuntimeError("mat1 and mat2 cannot be multiplied (injected)")
        return step(*arguments, **named)

    monkeypatch.setattr(diffusers.DDIMScheduler, "step", broken)
    failed, drawn = draw(Engine(model, EngineOptions(), plan), jobs)
    assert failed == SCHEDULER_FAILED
    assert "mat1" in caplog.text
    assert nearly_equal(pixels(drawn), pixels(wanted))
