"""The engine's figures for TorchServe, and when they are reported."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import pytest
from driving import draw, submit
from tiny import make_job

from handler.doors.torchserve.metrics import Publisher
from handler.engine.engine import Engine
from handler.engine.memory.plan import MemoryPlan
from handler.engine.options import EngineOptions
from handler.model.model import Model


@dataclass
class Told:
    """Stands where TorchServe's metrics cache stands, and keeps what it is told by name."""

    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add_metric_to_cache(self, name: str, *_: Any) -> Any:
        told = self.values[name]

        class Metric:
            def add_or_update(self, value: float, dimensions: list[str]) -> None:
                assert dimensions == ["model"]
                told.append(value)

        return Metric()


@pytest.fixture
def engine(model: Model, plan: MemoryPlan) -> Engine:
    return Engine(model, EngineOptions(), plan)


def test_the_last_answer_is_told_at_once_and_the_warm_up_never(engine: Engine) -> None:
    draw(engine, [make_job()])  # the warm-up
    told = Told()
    publisher = Publisher(engine, told, "model")
    publisher.publish()
    assert told.values["marquee_finished"] == []
    assert told.values["marquee_queue_seconds"] == []
    submit(engine, make_job(num_inference_steps=2, scheduler="DDIM"))
    engine.step()
    publisher.publish()
    assert told.values["marquee_live_images"] == [0], "not more than once a second while pictures are drawn"
    engine.step()
    publisher.publish()
    assert told.values["marquee_finished"] == [1]
    assert told.values["marquee_image_steps"] == [2]
    assert told.values["marquee_live_images"] == [0, 0]
    assert len(told.values["marquee_queue_seconds"]) == 1
