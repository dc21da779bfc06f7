"""Which rows reach which graph, and when there are none. What stands for a graph here is the UNet itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from driving import draw, nearly_equal, pixels

from handler.contract.job import Job
from handler.engine.accelerate.graphs import Capture, GraphedUNet, buckets, prove
from handler.engine.engine import Engine
from handler.engine.memory.footprint import measure_footprint
from handler.engine.memory.plan import MemoryPlan, plan_memory
from handler.engine.options import EngineOptions
from handler.model.model import Model

Call = Callable[..., torch.Tensor]


def rows_of(model: Model, count: int, side: int = 8) -> tuple[Any, Any, Any]:
    width = model.unet.config.cross_attention_dim
    return torch.randn(count, 4, side, side), torch.full((count,), 500.0), torch.randn(count, 16, width)


def captured(model: Model, replayed: list[int], off: float = 0.0) -> Capture:
    """Like a graph it takes one row count only and answers in one buffer, over and over."""

    def capture(count: int) -> Call:
        output = torch.zeros(count, 4, 8, 8)

        def replay(*rows: torch.Tensor) -> torch.Tensor:
            assert [len(tensor) for tensor in rows] == [count] * 3
            replayed.append(count)
            sample, times, texts = rows
            drawn = model.unet(sample, times, encoder_hidden_states=texts, return_dict=False)[0]
            return output.copy_(drawn + off)

        return replay

    return capture


def graphed(model: Model, counts: list[int], replayed: list[int]) -> GraphedUNet:
    return GraphedUNet(model.unet, rows_of(model, max(counts)), counts, captured(model, replayed))


def test_buckets_pad_by_less_than_half() -> None:
    assert buckets(16) == [1, 2, 3, 4, 6, 8, 12, 16]
    assert buckets(1) == [1]
    assert buckets(10) == [1, 2, 3, 4, 6, 8, 10]
    for most in range(1, 40):
        sizes = buckets(most)
        assert sizes[-1] == most
        for count in range(1, most + 1):
            assert min(size for size in sizes if size >= count) < 1.5 * count


@torch.inference_mode()
def test_rows_are_padded_up_and_cut_out(model: Model) -> None:
    replayed: list[int] = []
    unet = graphed(model, [1, 2, 4], replayed)
    sample, times, texts = rows_of(model, 3)
    times = torch.tensor([10.0, 400.0, 900.0])
    wanted = model.unet(sample, times, texts, return_dict=False)[0]
    [drawn] = unet(sample, times, encoder_hidden_states=texts)
    torch.testing.assert_close(drawn, wanted)
    sample, times, texts = rows_of(model, 3)
    unet(sample, times, encoder_hidden_states=texts)
    torch.testing.assert_close(drawn, wanted)  # the next replay writes over the buffer, not over this
    assert replayed == [4, 4]


@torch.inference_mode()
def test_other_sizes_and_more_rows_go_to_the_plain_unet(model: Model) -> None:
    replayed: list[int] = []
    unet = graphed(model, [2], replayed)
    short = rows_of(model, 2)[2][:, :5]
    for sample, times, texts in [
        rows_of(model, 3),
        rows_of(model, 2, side=16),
        (*rows_of(model, 2)[:2], short),
    ]:
        wanted = model.unet(sample, times, texts, return_dict=False)[0]
        assert torch.equal(unet(sample, times, encoder_hidden_states=texts)[0], wanted)
    assert replayed == []
    sample, _, texts = rows_of(model, 1)
    assert unet(sample, 7, encoder_hidden_states=texts)[0].shape == (1, 4, 8, 8)
    assert replayed == [2]


@torch.inference_mode()
def test_graphs_that_draw_the_same_are_taken(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    replayed: list[int] = []
    unet = prove(model.unet, rows_of(model, 4), [1, 2, 4], captured(model, replayed))
    assert isinstance(unet, GraphedUNet)
    assert unet.row_counts == [1, 2, 4] == sorted(replayed)
    assert caplog.records == []


@torch.inference_mode()
@pytest.mark.parametrize("off", [0.1, float("nan")])
def test_graphs_that_draw_something_else_are_refused_in_one_line(
    model: Model, caplog: pytest.LogCaptureFixture, off: float
) -> None:
    with caplog.at_level(logging.WARNING):
        assert prove(model.unet, rows_of(model, 2), [1, 2], captured(model, [], off)) is model.unet
    (record,) = caplog.records
    assert "differ" in record.message


@torch.inference_mode()
def test_graphs_that_cannot_be_captured_are_refused_in_one_line(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    def capture(count: int) -> Call:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory (injected)\nmany more lines")

    with caplog.at_level(logging.WARNING):
        assert prove(model.unet, rows_of(model, 2), [1, 2], capture) is model.unet
    (record,) = caplog.records
    assert record.message == "no CUDA graphs: CUDA out of memory (injected)"


@pytest.mark.parametrize("strict", [False, True])
def test_the_engine_draws_its_pictures_through_them(
    strict: bool, model: Model, plan: MemoryPlan, oracle: list[tuple[Job, torch.Tensor]]
) -> None:
    replayed: list[int] = []
    counts = [6] if strict else buckets(6)
    unet = graphed(model, counts, replayed)
    options = EngineOptions(max_live=3, strict=strict, vectorised=True, max_steps=8)
    outcomes = draw(Engine(replace(model, unet=unet), options, plan), [job for job, _ in oracle[:24]])
    for (_, wanted), outcome in zip(oracle, outcomes, strict=False):
        assert nearly_equal(pixels(outcome), wanted)
    assert set(replayed) <= set(counts)
    assert replayed


def test_memory_that_graphs_hold_is_not_planned_with(model: Model, plan: MemoryPlan) -> None:
    replayed: list[int] = []
    unet = graphed(model, [2], replayed)
    with_graphs = replace(model, unet=unet)
    measured = measure_footprint(with_graphs, 64, 64, 9)
    assert replayed == [], "a replay takes nothing, and the other sizes are not replayed"
    assert measured.unet_row_bytes == pytest.approx(plan.footprint.unet_row_bytes, rel=0.5)
    assert plan_memory(with_graphs, plan.footprint).budget_bytes > 0
    unet.held_bytes = 2**60
    assert plan_memory(with_graphs, plan.footprint).budget_bytes < 0
    assert plan_memory(with_graphs, plan.footprint).places(64 * 64) == 1
