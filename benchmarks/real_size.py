"""Stable Diffusion 1.5's real dimensions, built, served and asked on this machine; writes docs/real-size.md.

With random weights the picture is noise, but the work is the same. Needs 10 GB of disk and 8 GB of memory.
"""

from __future__ import annotations

import base64
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx
import psutil
from PIL import Image

from benchmarks.report import machine
from benchmarks.sd15 import write_random_sd15

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "real-size.md"
ASK = {"prompt": "a red circle on a blue background", "num_inference_steps": 2, "seed": 1}
T = TypeVar("T")


def main() -> None:
    """Measure once and write the page."""
    from pipeline.archive.build import BuildConfig, build
    from pipeline.progress import Silent
    from pipeline.serving.settings import ServeOptions
    from pipeline.serving.torchserve import serve

    folder = ROOT / "out" / "real-size"
    folder.mkdir(parents=True, exist_ok=True)
    model = write_random_sd15(folder / "sd15", ROOT / "model_artifacts" / "shapes" / "tokenizer")
    rows = list[tuple[str, str]]()
    built, seconds = timed(lambda: build(BuildConfig(str(model), folder / "model.mar"), Silent()))
    rows.append(("`marquee build`", f"{seconds:.1f} s, {built.size / 1e9:.2f} GB, {built.files} files"))
    started = time.perf_counter()
    with serve(folder / "model.mar", ServeOptions(start_seconds=1800)) as server:
        rows.append(
            (
                "start, until the second of its two pictures of 2 steps",
                f"{time.perf_counter() - started:.1f} s",
            )
        )
        resident, peak = worker_memory(server.pid)
        rows.append(("worker's memory after the start", f"{resident:.1f} GB, at most {peak:.1f} GB"))
        answer, seconds = timed(
            lambda: httpx.post(server.predict_url, json={"instances": [ASK]}, timeout=1800)
        )
        rows.append((f"one picture, {picture_size(answer)}, 2 steps", f"{seconds:.1f} s"))
        resident, peak = worker_memory(server.pid)
        rows.append(("worker's memory after it", f"{resident:.1f} GB, at most {peak:.1f} GB"))
    write(rows)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def picture_size(answer: httpx.Response) -> str:
    """Width and height in pixels; raises where the answer is no picture."""
    answer.raise_for_status()
    image = Image.open(io.BytesIO(base64.b64decode(answer.json()["predictions"][0])))
    return f"{image.width}x{image.height}"


def worker_memory(pid: int) -> tuple[float, float]:
    """Resident and peak resident GB of the largest Python process below ``pid``."""
    processes = psutil.Process(pid).children(recursive=True)
    workers = [process for process in processes if "python" in process.name()]
    largest = max(workers, key=lambda process: process.memory_info().rss)
    status = Path(f"/proc/{largest.pid}/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return largest.memory_info().rss / 1e9, peak * 1024 / 1e9


def write(rows: list[tuple[str, str]]) -> None:
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    PAGE.write_text(
        "# Stable Diffusion 1.5's real dimensions on a CPU\n\n"
        "Made by `python -m benchmarks.real_size`: a model with the published configuration and random "
        "weights, packed by `marquee build`, served by TorchServe. UNet and VAE are fp16 on disk and the "
        "rest is fp32; in memory all are fp32. At its start the handler draws a picture of 2 steps, and then "
        "`marquee serve` asks for another: a server is ready when it has drawn a picture.\n\n"
        f"Machine: {machine()}.\n\n| | |\n|---|---|\n{table}\n"
    )
    print(table, file=sys.stdout)


if __name__ == "__main__":
    main()
