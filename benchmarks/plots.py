"""The three pictures of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.load import Answer

Points = Sequence[tuple[float, float]]


def latency_against_load(sides: Mapping[str, Points], path: Path) -> None:
    """Median seconds of mixed requests over the offered rate (requests/s), one line a side."""
    _lines(sides, ("offered requests/s", "median seconds"), "Latency against load, 10-50 steps", path, True)


def throughput_against_batch(sides: Mapping[str, Points], path: Path) -> None:
    """Pictures per second over the number of clients that wait at the same time."""
    _lines(sides, ("clients at the same time", "pictures/s"), "Throughput against concurrency", path, False)


def timeline(answers: Sequence[Answer], path: Path) -> None:
    """One bar a request from sent to answered, coloured by step count: who joins and leaves when."""
    from matplotlib import colormaps
    from matplotlib import pyplot as plot

    figure, axes = plot.subplots(figsize=(9, 4.5))
    counts = sorted({answer.num_inference_steps for answer in answers})
    colours = {steps: colormaps["viridis"](i / max(1, len(counts) - 1)) for i, steps in enumerate(counts)}
    labelled = set[int]()
    for row, answer in enumerate(sorted(answers, key=lambda a: a.sent)):
        steps = answer.num_inference_steps
        label = None if steps in labelled else f"{steps} steps"
        labelled.add(steps)
        axes.barh(row, answer.seconds, left=answer.sent, color=colours[steps], label=label)
    axes.set(xlabel="seconds", ylabel="request", title="Requests join and leave one running batch")
    axes.invert_yaxis()
    axes.legend(fontsize=8, loc="lower left")
    _save(figure, path)


def _lines(
    sides: Mapping[str, Points], labels: tuple[str, str], title: str, path: Path, logarithmic: bool
) -> None:
    from matplotlib import pyplot as plot

    figure, axes = plot.subplots(figsize=(7, 4.2))
    for name, points in sides.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(xlabel=labels[0], ylabel=labels[1], title=title)
    if logarithmic:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    _save(figure, path)


def _save(figure: object, path: Path) -> None:
    from matplotlib import pyplot as plot
    from matplotlib.figure import Figure

    assert isinstance(figure, Figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plot.close(figure)
