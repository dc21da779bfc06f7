"""The plots: their titles say what was found, their axes are readable, and they can be drawn again."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import plots
from benchmarks.load import Answer

LATENCY = {
    "tutorial handler": [(0.5, 0.9), (2.0, 6.0), (8.0, math.inf)],
    "LitServe": [(0.5, 0.7), (2.0, 1.3), (8.0, 12.0)],
    plots.OURS: [(0.5, 0.8), (2.0, 0.9), (8.0, 1.3)],
}
MANY = [(load, 1.0) for load in (0.4, 0.7, 1.3, 2.6, 5.2, 9.7)]
THROUGHPUT = {
    "TorchServe batching": [(1, 1.2), (4, 4.7), (16, 17.0)],
    plots.OURS: [(1, 2.3), (4, 5.9), (16, 15.0)],
}
JOINS = [Answer(i / 10, i / 10 + steps / 20, 200, steps) for i, steps in enumerate((50, 10, 30, 10, 50, 20))]


@pytest.mark.parametrize(
    ("systems", "best", "title"),
    [
        (LATENCY, min, "8: marquee 1.3, LitServe 12"),
        (THROUGHPUT, max, "16: TorchServe batching 17, marquee 15"),
        ({plots.OURS: [(1, 2.0)]}, min, "Only marquee was measured"),
        ({plots.OURS: [(1, 2.0), (9, 3.0)], "LitServe": [(2, 4.0)]}, min, "marquee 3 at 9, LitServe 4 at 2"),
        ({plots.OURS: [(9, 3.0)], "LitServe": [(2, 4.0)]}, max, "LitServe 4 at 2, marquee 3 at 9"),
    ],
)
def test_the_title_compares_the_two_best_systems_at_one_load_or_each_at_its_highest(
    systems: dict[str, plots.Line], best: object, title: str
) -> None:
    same = "{load:g}: {first} {best:g}, {second} {next:g}"
    apart = "{first} {best:g} at {load:g}, {second} {next:g} at {second_load:g}"
    assert plots.finding(systems, same, apart, best) == title


def test_points_come_back_from_their_file_and_are_drawn(tmp_path: Path) -> None:
    points = plots.Points(LATENCY, THROUGHPUT, JOINS)
    plots.write_points(points, tmp_path / "points.json")
    assert plots.read_points(tmp_path / "points.json") == points
    for path in plots.draw(points, tmp_path):
        with Image.open(path) as picture:
            assert picture.width > picture.height > 300


def test_seconds_on_the_axis_are_plain_numbers() -> None:
    figure, axes = plots.lines_of_latency(LATENCY)
    figure.canvas.draw()
    assert {"1", "2", "5", "10"} <= {label.get_text() for label in axes.get_yticklabels()}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.5", "2", "8"]
    legend = axes.get_legend()
    assert legend is not None
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["tutorial handler", "LitServe", plots.OURS]


def test_many_different_loads_get_a_few_plain_ticks() -> None:
    figure, axes = plots.lines_of_latency(
        {"LitServe": [(0.3, 1.0), (1.1, 2.0), (3.1, 3.0)], plots.OURS: MANY}
    )
    figure.canvas.draw()
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert {"0.5", "1", "2", "5"} <= set(shown)
    assert "0.3" not in shown
