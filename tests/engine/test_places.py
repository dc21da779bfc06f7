"""max_batch: auto takes the knee of a measured curve; memory, slow steps and strict mode bound it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import make_pipeline

from handler.contract.limits import Defaults
from handler.contract.settings import Settings
from handler.engine.memory.plan import Footprint, MemoryPlan
from handler.engine.opening import open_engine
from handler.engine.places import MOST_STEPS, choose_places, knee, measure_curve
from handler.engine.start import max_queue
from handler.model.model import Model

SMALL = Settings(defaults=Defaults(width=64, height=64))

FLAT = {1: 0.02, 2: 0.021, 4: 0.022, 8: 0.025, 16: 0.03, 32: 0.04, 64: 0.07}
STRAIGHT = {1: 0.01, 2: 0.02, 4: 0.04, 8: 0.08}
DOUBLING = {2**power: 0.001 * 2**power for power in range(7)}
BENT = {1: 0.02, 2: 0.02, 4: 0.02, 8: 0.022, 16: 0.042, 32: 0.083, 64: 0.17}


@pytest.mark.parametrize(
    ("curve", "rows_per_picture", "places"),
    [
        (FLAT, 2, 32),
        (FLAT, 1, 64),
        (STRAIGHT, 2, 1),
        (BENT, 2, 4),
        (BENT, 1, 8),
        ({1: 0.3, 2: 0.6}, 2, None),  # no picture's step is fast
        ({1: 0.1, 2: 0.2, 4: 0.3, 8: 0.55}, 2, 2),  # a slow step is never chosen
        ({}, 2, None),
    ],
)
def test_the_fewest_places_near_the_best_rate(
    curve: dict[int, float], rows_per_picture: int, places: int | None
) -> None:
    assert knee(curve, rows_per_picture) == places


class Clockwork:
    """A UNet whose call of so many rows takes what ``seconds`` says; counts what it was asked."""

    def __init__(self, curve: dict[int, float]) -> None:
        self.curve, self.calls = curve, list[int]()

    def __call__(self, rows: int) -> float:
        self.calls.append(rows)
        return self.curve[rows]

    @property
    def spent(self) -> float:
        return sum(self.curve[rows] for rows in self.calls)


@pytest.mark.parametrize("curve", [FLAT, BENT, dict.fromkeys(FLAT, 0.03), DOUBLING])
def test_all_row_counts_are_measured_within_ten_steps(curve: dict[int, float]) -> None:
    unet = Clockwork(curve)
    assert measure_curve(unet, 64) == curve
    assert unet.spent <= MOST_STEPS * max(curve.values())


def test_no_long_step_is_measured() -> None:
    slow = Clockwork({1: 0.6})
    assert measure_curve(slow, 64) == {}
    assert slow.calls == [1]
    growing = Clockwork({1: 0.2, 2: 0.4})
    assert measure_curve(growing, 64) == {1: 0.2, 2: 0.4}


def test_memory_bounds_the_rows() -> None:
    assert list(measure_curve(Clockwork(FLAT), 8)) == [1, 2, 4, 8]


def test_auto_measures_and_never_exceeds_the_memory_plan(model: Model) -> None:
    room_for_two = MemoryPlan(2 * 64 * 64 * 200, Footprint(100.0, 0.0, 0.0))
    chosen = choose_places(model, SMALL, room_for_two)
    assert chosen.count <= 2
    assert set(chosen.batch_curve) <= {1, 2, 4}
    assert chosen.batch_curve


@pytest.mark.parametrize("settings", [Settings(strict=True), Settings(max_batch=8)])
def test_nothing_is_measured_where_the_number_is_known(
    model: Model, plan: MemoryPlan, settings: Settings
) -> None:
    chosen = choose_places(model, settings, plan)
    assert (chosen.count, dict(chosen.batch_curve)) == (8, {})


def test_the_queue_is_in_proportion_to_measured_places() -> None:
    auto = Settings(continuous_batching=True, batch_size=192)
    assert max_queue(auto, 32) == 192 - 32 - 24
    assert max_queue(auto, 8) == 48 - 8 - 6, "as for a fixed 8 with its batchSize of 48"
    assert max_queue(auto, 8) == max_queue(Settings(continuous_batching=True, batch_size=48, max_batch=8), 8)
    assert max_queue(Settings(batch_size=32), 4) == 32 * 16, "a plain batch is taken whole"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    pipeline = make_pipeline(tmp_path)
    pipeline.save_pretrained(tmp_path / "model", safe_serialization=True)
    return tmp_path


def test_the_description_reports_places_and_curve(root: Path) -> None:
    engine = _engine_of(open_engine(root, SMALL).description)
    assert engine["max_batch"] in (1, 2, 4, 8, 16, 32)
    assert list(engine["batch_curve"])[:2] == ["1", "2"]
    assert engine["dtype_probe"] is None, "the tiny model is narrow"
    strict = _engine_of(open_engine(root, Settings(defaults=SMALL.defaults, strict=True)).description)
    assert (strict["max_batch"], strict["batch_curve"]) == (8, {})


def _engine_of(description: Any) -> dict[str, Any]:
    engine: dict[str, Any] = description["engine"]
    return engine
