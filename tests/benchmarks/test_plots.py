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
        ({plots.OURS: [(1, 2.0)]}, min, "The systems were not measured at the same loads"),
        (
            {plots.OURS: [(1, 2.0)], "LitServe": [(2, 2.0)]},
            min,
            "The systems were not measured at the same loads",
        ),
    ],
)
def test_the_title_names_the_two_best_systems_at_the_highest_common_load(
    systems: dict[str, plots.Line], best: object, title: str
) -> None:
    assert plots.finding(systems, "{load:g}: {first} {best:g}, {second} {next:g}", best) == title


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
