"""What strict mode costs, and whether its pictures have the same bits beside any others."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.core import MID, draw, jobs, load_engine
from benchmarks.ratio import Ratio, alternate

if TYPE_CHECKING:
    from handler.engine.engine import Engine


def strict_mode(root: Path, rounds: int) -> tuple[Ratio, str]:
    """Throughput of strict mode against that of fast mode, and whether strict pictures are bit-identical.

    ``root`` is an unpacked archive; both engines draw with its compiled UNet.
    """
    from handler.engine.profile import choose_profile
    from handler.engine.start import start_engine

    fast, model, settings = load_engine(root)
    strict = start_engine(model, replace(settings, strict=True), choose_profile(model, settings)).engine
    twenty_steps = replace(MID, num_inference_steps=20)
    work = jobs(twenty_steps, 2 * settings.places, settings)

    def rate(engine: Engine) -> float:
        started = time.perf_counter()
        draw(engine, work)
        return len(work) / (time.perf_counter() - started)

    mine, other = alternate(lambda _: rate(strict), lambda _: rate(fast), rounds)
    together = [picture.image.tobytes() for picture in draw(strict, work)]
    lone = work if rounds > 1 else work[:6]
    same = sum(
        draw(strict, [job])[0].image.tobytes() == bits for job, bits in zip(lone, together, strict=False)
    )
    remark = f"strict mode: {same} of {len(lone)} strict pictures are bit-identical alone and under load"
    goal = 0.8 if model.device.type == "cuda" else 0.6
    return Ratio("throughput in strict mode", "fast mode", "pictures/s", mine, other, False, goal), remark
