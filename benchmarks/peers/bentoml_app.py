"""BentoML with its adaptive batching: bentoml serve bentoml_app:Pictures."""

import os
from typing import Any

import bentoml
import torch
from drawing import draw, load


@bentoml.service(
    workers=int(os.environ.get("BENCH_WORKERS", "1")), traffic={"timeout": 600, "max_concurrency": 256}
)
class Pictures:
    def __init__(self) -> None:
        self.pipe = load()

    @bentoml.api(
        route="/predict",
        batchable=True,
        max_batch_size=int(os.environ.get("BENCH_BATCH", "8")),
        max_latency_ms=int(os.environ.get("BENCH_LATENCY_MS", "600000")),
    )
    @torch.inference_mode()
    def predict(self, instances: list[dict[str, Any]]) -> list[str]:
        return draw(self.pipe, instances)
