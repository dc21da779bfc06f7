"""docs/benchmarks.md: the table of ratios, the machine that they were measured on, and the plots."""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from benchmarks.promises import Promise
from benchmarks.ratio import Ratio

HEADER = (
    "| figure | against | ours | other | unit | ratio (median) | spread | goal | met |\n" + "|---" * 9 + "|"
)
PROMISE_HEADER = "| promise | median | worst | unit | tries | promised | met |\n" + "|---" * 7 + "|"
SERVED, REAL_SHAPES, ARCHIVE, GPU = TITLES = (
    "The embedded model, served",
    "SD 1.5's shapes at 256x256 on a CPU",
    "From weights to an archive",
    "SD 1.5's shapes at 512x512 on a GPU",
)
INTRODUCTION = """# Benchmarks

Made by `make bench`. `make bench ARGS="--only served"` measures the first section again, `--only mid` the
second, `--only archive` the third, and `make bench ARGS=--gpu` the last one on a machine with a GPU.

"Ours" is marquee. Both systems of a row are measured in one run, in turns; a ratio above 1 means that marquee
is better. Spread: the ratios of the worst and the best round. Goal: the ratio that marquee is meant to reach.
"""
NOT_MEASURED = "Not measured."
MET = {None: "-", True: "yes", False: "**no**"}


def table(ratios: Sequence[Ratio]) -> str:
    """One markdown row a ratio; the spread is the lowest and highest round."""
    return "\n".join([HEADER, *(_row(ratio) for ratio in ratios)])


def _row(ratio: Ratio) -> str:
    goal = "-" if ratio.goal is None else f">= {ratio.goal:g}"
    ours, other = statistics.median(ratio.ours), statistics.median(ratio.other)
    spread = f"{min(ratio.rounds):.2f}-{max(ratio.rounds):.2f}" if ratio.rounds else "-"
    cells = [ratio.name, ratio.other_side, f"{ours:.3g}", f"{other:.3g}", ratio.unit]
    return "| " + " | ".join([*cells, f"{ratio.value:.2f}", spread, goal, MET[ratio.met]]) + " |"


def promise_table(promises: Sequence[Promise]) -> str:
    """One markdown row a promise; the worst try decides whether it is met."""
    return "\n".join([PROMISE_HEADER, *(_promise_row(promise) for promise in promises)])


def _promise_row(promise: Promise) -> str:
    below = {None: "-", math.inf: "an answer"}.get(promise.below, f"< {promise.below}")
    cells = [promise.name, f"{statistics.median(promise.values):.3g}", f"{promise.worst:.3g}", promise.unit]
    return "| " + " | ".join([*cells, str(len(promise.values)), below, MET[promise.met]]) + " |"


def machine() -> str:
    """The processor, cores and library versions that the figures were measured with."""
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


@dataclass
class Section:
    """One part of the page: its figures, and the plots that lie beside the page."""

    title: str
    ratios: list[Ratio] = field(default_factory=list)
    promises: list[Promise] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    plots: list[Path] = field(default_factory=list)
    minutes: float = 0.0

    def text(self, folder: Path) -> str:
        """Markdown without its heading, for a page in ``folder``."""
        notes = [f"{ratio.name} ({ratio.other_side}): {ratio.note}" for ratio in self.ratios if ratio.note]
        parts = [f"Measured on: {machine()}; {self.minutes:.0f} minutes.", table(self.ratios)]
        parts.append("\n".join(f"- {line}" for line in [*notes, *self.remarks]))
        parts.append(promise_table(self.promises) if self.promises else "")
        parts += [f"![{plot.stem}]({plot.relative_to(folder)})" for plot in self.plots]
        return "\n\n".join(part for part in parts if part)


def write(section: Section, page: Path) -> None:
    """Replace this section of the page; the other sections stay."""
    found = page.read_text().split("\n## ")[1:] if page.exists() else []
    texts = {title: text.strip() for title, _, text in (part.partition("\n") for part in found)}
    texts[section.title] = section.text(page.parent)
    body = "".join(f"\n## {title}\n\n{texts.get(title, NOT_MEASURED)}\n" for title in TITLES)
    page.write_text(INTRODUCTION + body)
