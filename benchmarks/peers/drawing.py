"""The other systems' drawing: requests with equal settings share a StableDiffusionPipeline call."""

from __future__ import annotations

import base64
import io
import os
from collections import defaultdict
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

Ask = dict[str, Any]


def load(folder: str | None = None) -> StableDiffusionPipeline:
    """The pipeline of ``folder`` (default: the variable BENCH_MODEL), threads from BENCH_THREADS.

    In fp32 on a CPU, in fp16 on a GPU where there is one.
    """
    torch.set_num_threads(int(os.environ.get("BENCH_THREADS", "2")))
    gpu = torch.cuda.is_available()
    dtype = torch.float16 if gpu else torch.float32
    pipe = StableDiffusionPipeline.from_pretrained(
        folder or os.environ["BENCH_MODEL"], torch_dtype=dtype, local_files_only=True
    ).to("cuda" if gpu else "cpu")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: StableDiffusionPipeline, asks: list[Ask]) -> list[str]:
    """One base64 JPEG for each ask, in order; {"prompt", "num_inference_steps", "guidance_scale", "seed"}."""
    groups: dict[tuple[int, float], list[int]] = defaultdict(list)
    for index, ask in enumerate(asks):
        groups[ask["num_inference_steps"], ask["guidance_scale"]].append(index)
    pictures = [""] * len(asks)
    for (steps, guidance), members in groups.items():
        images = pipe(
            prompt=[asks[i]["prompt"] for i in members],
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=[torch.Generator("cpu").manual_seed(asks[i]["seed"]) for i in members],
        ).images
        for i, image in zip(members, images, strict=True):
            pictures[i] = encode(image)
    return pictures


def encode(image: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=90)
    return base64.b64encode(buffer.getvalue()).decode()
