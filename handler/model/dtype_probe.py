"""Whether a CPU multiplies bfloat16 so much faster than float32 that a model is worth running in it.

Processors differ: bfloat16 runs at 2.9 times float32's rate with AVX512_BF16, at 6.6 times with AMX, and at
half on an Intel without AMX (all measured), so the rates are measured where the model runs.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

PAYS_FROM = 1.5
"""bfloat16's rate over float32's; below it rounding and conversions eat what is gained."""
WIDE_FROM = 640
"""Channels of a UNet's widest block. Narrower ones do not spend their time in products."""
SECONDS = 0.05
"""The most that measuring may take."""
MOST_ROWS = 1024


@dataclass(frozen=True)
class DtypeProbe:
    """GFLOP/s of products of ``width`` x ``width`` matrices in both dtypes; goes into describe answers."""

    width: int
    float32_gflops: float
    bfloat16_gflops: float

    @property
    def dtype(self) -> torch.dtype:
        """What a model of this width is run in on this CPU."""
        pays = self.bfloat16_gflops >= PAYS_FROM * self.float32_gflops
        return torch.bfloat16 if pays and self.width >= WIDE_FROM else torch.float32


def probe_dtypes(width: int) -> DtypeProbe | None:
    """The rates from this machine's cache, or measured and kept there; None for a UNet that is too narrow.

    A cache that is missing, unreadable or read-only is no error: then every start measures.
    """
    if width < WIDE_FROM:
        return None
    key = f"{processor_name()}, torch {torch.__version__}, {torch.get_num_threads()} threads, width {width}"
    file = cache_file()
    kept = _read(file)
    known = _probe_of(kept.get(key), width)
    if known is None:
        known = measure_rates(width)
        _write(file, {**kept, key: asdict(known)})
    return known


def measure_rates(width: int) -> DtypeProbe:
    """Products of more and more rows, as long as ``SECONDS`` allow; the last ones count."""
    rows, end = 8, time.perf_counter() + SECONDS
    while True:
        started = time.perf_counter()
        rates = [_gflops(rows, width, dtype) for dtype in (torch.float32, torch.bfloat16)]
        now = time.perf_counter()
        if rows == MOST_ROWS or now + 2 * (now - started) > end:
            return DtypeProbe(width, *rates)
        rows *= 2


def cache_file() -> Path | None:
    """Where this user's rates are kept; None where the user has no home."""
    try:
        return Path.home() / ".cache" / "marquee" / "dtype-rates.json"
    except RuntimeError:
        return None


def _gflops(rows: int, width: int, dtype: torch.dtype) -> float:
    """The better of two products: the first one prepares its kernel."""
    left, right = torch.ones(rows, width, dtype=dtype), torch.ones(width, width, dtype=dtype)
    times: list[float] = []
    for _ in range(2):
        started = time.perf_counter()
        torch.mm(left, right)
        times.append(time.perf_counter() - started)
    return round(2e-9 * rows * width * width / max(1e-9, min(times)), 1)


def processor_name() -> str:
    """The processor's name, which stands for its instruction sets, and how torch uses it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "cpu")
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def _read(file: Path | None) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        kept = json.loads(file.read_text(encoding="utf-8")) if file else None
        if isinstance(kept, dict):
            return kept
    return {}


def _probe_of(kept: Any, width: int) -> DtypeProbe | None:
    """None unless the cache holds two rates."""
    rates = [kept.get(f"{name}_gflops") for name in ("float32", "bfloat16")] if isinstance(kept, dict) else []
    known = [rate for rate in rates if isinstance(rate, float) and math.isfinite(rate) and rate > 0]
    return DtypeProbe(width, *known) if len(known) == 2 else None


def _write(file: Path | None, kept: dict[str, Any]) -> None:
    """Replaces the file as a whole: several workers may start at once."""
    if file is None:
        return
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as new:
                json.dump(kept, new, indent=2)
            os.replace(name, file)
        except OSError:
            os.unlink(name)
