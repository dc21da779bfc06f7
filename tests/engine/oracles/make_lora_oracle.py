"""Write loras.safetensors beside this file: rows and pictures with LoRAs, drawn by diffusers with peft.

peft is no dependency of marquee; from the repository's root:

    .venv/bin/python -m pip install --no-deps --target /tmp/peft peft==0.21.2
    PYTHONPATH=/tmp/peft:tests/engine:. .venv/bin/python tests/engine/oracles/make_lora_oracle.py
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from lora_files import ASKED, checksum, make_loras, oracle_jobs, unet_inputs
from safetensors.torch import save_file
from tiny import draw_plainly, layers, make_job, make_pipeline

OUT = Path(__file__).with_name("loras.safetensors")


def main() -> None:
    """One call of each part per row, because peft's weights are the same for a whole call."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        pipeline = make_pipeline(Path(folder))
    pipeline.set_progress_bar_config(disable=True)
    found = {"checksum": checksum(pipeline)}
    samples, times, texts = unet_inputs(pipeline)
    for name, tensors in make_loras(pipeline).items():
        pipeline.load_lora_weights(dict(tensors), adapter_name=name)
    tokens = torch.arange(4 * 16).reshape(4, 16)
    unet, encoded = [], []
    with torch.inference_mode():
        for row, (weights, job) in enumerate(zip(ASKED, oracle_jobs(make_job), strict=True)):
            _choose(pipeline, weights)
            one = slice(row, row + 1)
            unet.append(layers(pipeline.unet)(samples[one], times[one], texts[one]).sample)
            encoded.append(layers(pipeline.text_encoder)(tokens[one])[0])
            found[f"picture.{row}"] = draw_plainly(pipeline, dataclasses.replace(job, loras=()))
    found["unet"], found["text"] = torch.cat(unet), torch.cat(encoded)
    save_file(found, OUT)


def _choose(pipeline: StableDiffusionPipeline, weights: Mapping[str, float]) -> None:
    if weights:
        pipeline.enable_lora()
        pipeline.set_adapters(list(weights), list(weights.values()))
    else:
        pipeline.disable_lora()


if __name__ == "__main__":
    main()
