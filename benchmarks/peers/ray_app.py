"""Ray Serve with its request batching: python ray_app.py PORT BATCH SECONDS"""

import os
import signal
import sys

import ray
import torch
from drawing import draw, load
from ray import serve

PORT, BATCH, SECONDS = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
WORKERS = int(os.environ["BENCH_WORKERS"])
GPUS = 1 / WORKERS if torch.cuda.is_available() else 0  # an actor that asks for no GPU sees none


@serve.deployment(
    num_replicas=WORKERS, max_ongoing_requests=256, ray_actor_options={"num_cpus": 1, "num_gpus": GPUS}
)
class Pictures:
    def __init__(self):
        self.pipe = load()

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=SECONDS)
    async def draw_batch(self, asks):
        with torch.inference_mode():
            return draw(self.pipe, asks)

    async def __call__(self, request):
        body = await request.json()
        return {"predictions": [await self.draw_batch(body["instances"][0])]}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(Pictures.bind(), route_prefix="/predict")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
