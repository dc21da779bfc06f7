"""The engine's numbers as TorchServe metrics, which its frontend shows to Prometheus.

Each value travels as a log line of the worker, so they go out at most once a second while pictures are drawn.
The frontend drops metrics it does not know: it needs ``model_metrics_auto_detect=true`` (0.11 and newer) or
a metrics file.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handler.engine.engine import Engine

SECONDS_BETWEEN = 1.0
COUNTERS = ("admitted", "refused", "cancelled", "finished", "failed", "steps", "unet_calls", "image_steps")
GAUGES = ("live_images", "waiting_jobs", "steps_per_second", "batch_occupancy", "memory_bytes")
HISTOGRAMS = ("queue_seconds", "picture_seconds")


class Publisher:
    """Passes on what changed since the last time; does nothing where TorchServe has no such metrics (0.7)."""

    def __init__(self, engine: Engine, metrics: Any, model_name: str) -> None:
        self._engine = engine
        self._dimensions = [model_name]
        # The warm-up is no client's request, so it is not counted.
        self._published: dict[str, int] = {name: engine.metrics.counts[name] for name in COUNTERS}
        engine.metrics.drain()
        self._last = time.monotonic()
        self._metrics = _register(metrics)

    def publish(self) -> None:
        elapsed = time.monotonic() - self._last
        if not self._metrics or not elapsed or (elapsed < SECONDS_BETWEEN and self._engine.busy):
            return
        self._last += elapsed
        grown = {name: self._grown(name) for name in COUNTERS}
        for name, count in grown.items():
            if count:
                self._put(name, count)
        self._put("steps_per_second", grown["steps"] / elapsed)
        places = grown["steps"] * self._engine.options.max_live
        self._put("batch_occupancy", grown["image_steps"] / places if places else 0.0)
        for name, value in self._engine.gauges().items():
            self._put(name, value)
        for name, seconds in self._engine.metrics.drain():
            self._put(name, seconds)

    def _grown(self, name: str) -> int:
        count = self._engine.metrics.counts[name]
        before, self._published[name] = self._published.get(name, 0), count
        return count - before

    def _put(self, name: str, value: float) -> None:
        self._metrics[name].add_or_update(value, self._dimensions)


def _register(metrics: Any) -> dict[str, Any]:
    try:
        from ts.metrics.metric_type_enum import MetricTypes
    except ImportError:
        return {}
    if not hasattr(metrics, "add_metric_to_cache"):
        return {}
    kinds = {MetricTypes.COUNTER: COUNTERS, MetricTypes.GAUGE: GAUGES, MetricTypes.HISTOGRAM: HISTOGRAMS}
    return {
        name: metrics.add_metric_to_cache(f"marquee_{name}", _unit(name), ["ModelName"], kind)
        for kind, names in kinds.items()
        for name in names
    }


def _unit(name: str) -> str:
    return name.rpartition("_")[2] if name.endswith(("_seconds", "_bytes")) else "count"
