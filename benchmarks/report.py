"""docs/benchmarks.md: the table of ratios, on what machine, with the plots."""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from benchmarks.promises import Promise
from benchmarks.ratio import Ratio

HEADER = (
    "| figure | against | ours | other | unit | ratio (median) | spread | goal | met |\n" + "|---" * 9 + "|"
)
PROMISE_HEADER = "| promise | median | worst | unit | tries | promised | met |\n" + "|---" * 7 + "|"
MET = {None: "-", True: "yes", False: "**no**"}


def table(ratios: Sequence[Ratio]) -> str:
    """One markdown row a ratio; the spread is the lowest and highest round."""
    return "\n".join([HEADER, *(_row(ratio) for ratio in ratios)])


def _row(ratio: Ratio) -> str:
    goal = "-" if ratio.goal is None else f">= {ratio.goal:g}"
    ours, other = statistics.median(ratio.ours), statistics.median(ratio.other)
    spread = f"{min(ratio.rounds):.2f}-{max(ratio.rounds):.2f}"
    cells = [ratio.name, ratio.other_side, f"{ours:.3g}", f"{other:.3g}", ratio.unit]
    return "| " + " | ".join([*cells, f"{ratio.value:.2f}", spread, goal, MET[ratio.met]]) + " |"


def promise_table(promises: Sequence[Promise]) -> str:
    """One markdown row a promise; the worst try decides whether it is met."""
    return "\n".join([PROMISE_HEADER, *(_promise_row(promise) for promise in promises)])


def _promise_row(promise: Promise) -> str:
    below = {None: "-", math.inf: "at all"}.get(promise.below, f"< {promise.below}")
    cells = [promise.what, f"{statistics.median(promise.values):.3g}", f"{promise.worst:.3g}", promise.unit]
    return "| " + " | ".join([*cells, str(len(promise.values)), below, MET[promise.met]]) + " |"


def machine() -> str:
    """The processor, cores and library versions the figures hold for."""
    import diffusers
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "?")
    flags = next((line for line in lines if line.startswith("flags")), "")
    amx = "with AMX" if "amx_bf16" in flags else "without AMX"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{model} {amx}, {len(os.sched_getaffinity(0))} cores, {gpu}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, diffusers {diffusers.__version__}; {date.today().isoformat()}"
    )


def write(
    ratios: Sequence[Ratio],
    promises: Sequence[Promise],
    remarks: Sequence[str],
    plots: Sequence[Path],
    path: Path,
) -> None:
    """Write the page; ``plots`` lie under the page's folder."""
    pictures = "\n\n".join(f"![{plot.stem}]({plot.relative_to(path.parent)})" for plot in plots)
    notes = "\n".join(f"- {ratio.name} ({ratio.other_side}): {ratio.note}" for ratio in ratios if ratio.note)
    text = "\n".join(f"- {remark}" for remark in remarks)
    promised = f"## Promises\n\n{promise_table(promises)}\n\n" if promises else ""
    path.write_text(
        f"# Benchmarks\n\nMade by `make bench`. Both sides of a ratio share a run, in turns; above 1 is in "
        f"our favour.\n\nMachine: {machine()}.\n\n{table(ratios)}\n\n{notes}\n{text}\n\n"
        f"{promised}{pictures}\n"
    )
