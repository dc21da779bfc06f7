"""LitServe with its dynamic batching: python litserve_app.py PORT BATCH SECONDS"""

import os
import sys

import litserve
import torch
from drawing import draw, load


class Pictures(litserve.LitAPI):
    def setup(self, device):
        self.pipe = load()

    def decode_request(self, request):
        return request["instances"][0]

    def batch(self, inputs):
        return inputs

    @torch.inference_mode()
    def predict(self, asks):
        return draw(self.pipe, asks)

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return {"predictions": [output]}


if __name__ == "__main__":
    port, batch, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    api = Pictures(max_batch_size=batch, batch_timeout=seconds)
    workers = int(os.environ["BENCH_WORKERS"])
    litserve.LitServer(api, accelerator="cpu", workers_per_device=workers, timeout=600).run(
        host="127.0.0.1", port=port, num_api_servers=1, generate_client_file=False
    )
