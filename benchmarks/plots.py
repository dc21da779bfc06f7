"""The three plots of docs/benchmarks.md, and the file of points that they are drawn from.

``python -m benchmarks.plots [FOLDER]`` draws them again from FOLDER/points.json (docs/benchmarks by default).
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.load import Answer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Line = Sequence[tuple[float, float]]

OURS = "marquee"
# One colour a system in every plot (Okabe and Ito's palette, which colour-blind readers can tell apart).
COLOURS = {
    OURS: "#D55E00",
    "TorchServe batching": "#0072B2",
    "tutorial handler": "#56B4E9",
    "LitServe": "#009E73",
    "BentoML": "#CC79A7",
    "Ray Serve": "#E69F00",
}
OTHER_COLOUR = "#7F7F7F"
STEP_COLOURS = ("#FCD9C2", "#F9B183", "#F08A4B", "#D55E00", "#8F3F00")
"""Marquee's own colour from light to dark, for few to many steps."""
LATENCY_TITLE = "At {load:.3g} requests/s {first} answers in {best:.2g} s, {second} in {next:.2g} s"
LATENCY_APART_TITLE = (
    "{first} answers in {best:.2g} s at {load:.2g} requests/s, {second} in {next:.2g} s at {second_load:.2g}"
)
THROUGHPUT_TITLE = "With {load:g} clients {first} draws {best:.3g} pictures/s, {second} {next:.3g}"
THROUGHPUT_APART_TITLE = (
    "{first} draws {best:.3g} pictures/s with {load:g} clients, {second} {next:.3g} with {second_load:g}"
)
TICKS = (1.0, 2.0, 5.0)
MOST_LOAD_TICKS = 6
"""With more different loads than these their labels would overlap."""


@dataclass
class Points:
    """What the plots show.

    ``latency``: for each system (requests offered per second, median seconds). ``throughput``: for each
    system (clients at the same time, pictures per second). ``joins``: the requests of one run of marquee.
    """

    latency: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    throughput: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    joins: list[Answer] = field(default_factory=list)


def write_points(points: Points, path: Path) -> None:
    """Keep the points, so that the pictures can be drawn again without a run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(points), indent=1) + "\n", encoding="utf-8")


def read_points(path: Path) -> Points:
    """Read the points that ``write_points`` wrote."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    return Points(
        latency={name: [(x, y) for x, y in line] for name, line in kept["latency"].items()},
        throughput={name: [(x, y) for x, y in line] for name, line in kept["throughput"].items()},
        joins=[Answer(**answer) for answer in kept["joins"]],
    )


def draw(points: Points, folder: Path) -> list[Path]:
    """Draw latency.png, throughput.png and timeline.png into ``folder``."""
    pictures = [folder / f"{name}.png" for name in ("latency", "throughput", "timeline")]
    latency_against_load(points.latency, pictures[0])
    throughput_against_clients(points.throughput, pictures[1])
    timeline(points.joins, pictures[2])
    return pictures


def latency_against_load(systems: Mapping[str, Line], path: Path) -> None:
    """Median seconds of requests with 10 to 50 steps over the requests offered per second."""
    _save(lines_of_latency(systems)[0], path)


def lines_of_latency(systems: Mapping[str, Line]) -> tuple[Figure, Axes]:
    """The figure that ``latency_against_load`` saves."""
    title = finding(systems, LATENCY_TITLE, LATENCY_APART_TITLE, min)
    figure, axes = _lines(systems, title)
    axes.set(
        xlabel="requests offered per second (10 to 50 steps each)", ylabel="median seconds to the picture"
    )
    axes.set_yscale("log")
    _plain_numbers(axes.yaxis)
    return figure, axes


def throughput_against_clients(systems: Mapping[str, Line], path: Path) -> None:
    """Pictures per second over the number of clients that wait at the same time."""
    title = finding(systems, THROUGHPUT_TITLE, THROUGHPUT_APART_TITLE, max)
    figure, axes = _lines(systems, title)
    axes.set(xlabel="clients at the same time", ylabel="pictures per second", ylim=(0, None))
    _save(figure, path)


def timeline(answers: Sequence[Answer], path: Path) -> None:
    """One bar for each request from sent to answered, coloured by its step count."""
    figure, axes = _figure(5.0)
    counts = sorted({answer.num_inference_steps for answer in answers})
    last = max(1, len(counts) - 1)
    colours = {c: STEP_COLOURS[i * (len(STEP_COLOURS) - 1) // last] for i, c in enumerate(counts)}
    rows = list(enumerate(sorted(answers, key=lambda answer: answer.sent), start=1))
    for count in counts:
        bars = [(row, answer) for row, answer in rows if answer.num_inference_steps == count]
        axes.barh(
            [row for row, _ in bars],
            [answer.seconds for _, answer in bars],
            left=[answer.sent for _, answer in bars],
            color=colours[count],
            label=f"{count} steps",
        )
    axes.set(xlabel="seconds since the load began", ylabel="request, in order of arrival", xlim=(0, None))
    axes.set_title(_timeline_finding(answers, counts), fontweight="bold")
    axes.invert_yaxis()
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    _save(figure, path)


def finding(systems: Mapping[str, Line], sentence: str, apart: str, best: Any) -> str:
    """``sentence`` with ours and the best other system at the highest load that all of them were given.

    ``apart`` is the sentence where they have no load in common: each is shown at its own highest load.
    ``best``: min where a low figure is good, max where a high one is.
    """
    if len(systems) < 2:
        return f"Only {', '.join(systems)} was measured"
    common = set.intersection(*({x for x, y in line} for line in systems.values()))
    loads = {name: max(common or (x for x, y in line)) for name, line in systems.items()}
    figures = {name: dict(line)[loads[name]] for name, line in systems.items()}
    rival = best((name for name in figures if name != OURS), key=figures.__getitem__)
    first, second = sorted((OURS, rival), key=figures.__getitem__, reverse=best is max)
    return (sentence if common else apart).format(
        first=first,
        best=figures[first],
        load=loads[first],
        second=second,
        next=figures[second],
        second_load=loads[second],
    )


def _timeline_finding(answers: Sequence[Answer], counts: Sequence[int]) -> str:
    few, many = (
        statistics.median(answer.seconds for answer in answers if answer.num_inference_steps == count)
        for count in (counts[0], counts[-1])
    )
    return (
        f"{len(answers)} requests share one batch: {counts[0]} steps take {few:.2g} s,"
        f" {counts[-1]} steps {many:.2g} s (medians)"
    )


def _lines(systems: Mapping[str, Line], title: str) -> tuple[Figure, Axes]:
    """One line for each system, ours thick and in front; the legend in the order of the lines' right ends."""
    figure, axes = _figure(4.5)
    for name, line in sorted(systems.items(), key=lambda item: item[1][-1][1], reverse=True):
        ours = name == OURS
        axes.plot(
            *zip(*((x, y if math.isfinite(y) else math.nan) for x, y in line), strict=True),
            marker="o",
            label=name,
            color=COLOURS.get(name, OTHER_COLOUR),
            linewidth=3.5 if ours else 1.5,
            markersize=8 if ours else 5,
            zorder=3 if ours else 2,
        )
    loads = sorted({x for line in systems.values() for x, _ in line})
    axes.set_xscale("log")
    if len(loads) > MOST_LOAD_TICKS:
        _plain_numbers(axes.xaxis)
    else:
        axes.set_xticks(loads, [f"{load:.3g}" for load in loads])
        axes.set_xticks([], minor=True)
    axes.set_title(title, fontweight="bold")
    axes.grid(alpha=0.3, which="major")
    for text in axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False).get_texts():
        text.set_fontweight("bold" if text.get_text() == OURS else "normal")
    return figure, axes


def _plain_numbers(axis: Axis) -> None:
    """Give a logarithmic axis the ticks 0.5, 1, 2, 5, 10 in place of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=TICKS))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _figure(height: float) -> tuple[Figure, Axes]:
    from matplotlib import pyplot as plot

    figure, axes = plot.subplots(figsize=(8.5, height))
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    from matplotlib import pyplot as plot

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plot.close(figure)


if __name__ == "__main__":
    chosen = Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parents[1] / "docs" / "benchmarks"
    draw(read_points(chosen / "points.json"), chosen)
