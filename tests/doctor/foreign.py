"""Archives as other people make them: torch-model-archiver's layout, a handler of their own, no marquee."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

# What the public notebook's handler does, without the rest of it.
TUTORIAL = """
from diffusers import StableDiffusionPipeline
from ts.torch_handler.base_handler import BaseHandler
import torch


class ModelHandler(BaseHandler):
    def initialize(self, context):
        self.pipe = StableDiffusionPipeline.from_pretrained(
            "runwayml/stable-diffusion-v1-5", torch_dtype=torch.float16
        )
        self.initialized = True
"""

RAISES = """
from ts.torch_handler.base_handler import BaseHandler


class ModelHandler(BaseHandler):
    def initialize(self, context):
        self.initialized = True

    def handle(self, data, context):
        return [instance["prompt"].encode("ascii").decode() for instance in data]
"""


def write_foreign(path: Path, handler: str, weights: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    manifest = {
        "createdOn": "01/01/2024 00:00:00",
        "runtime": "python",
        "model": {"modelName": "model", "handler": "handler.py", "modelVersion": "1.0"},
        "archiverVersion": "0.12.0",
    }
    with zipfile.ZipFile(path, "w") as mar:
        mar.writestr("handler.py", handler)
        mar.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        if weights:
            mar.writestr("unet.safetensors", b"my fine-tune")
    return path
