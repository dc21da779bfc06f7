"""The whole flow on one machine: build, serve, draw eight prompts, look at the pictures, stop."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.archive.build import BuildConfig, build
from pipeline.client import Client
from pipeline.progress import Progress
from pipeline.serving.settings import ServeOptions
from pipeline.serving.torchserve import start
from pipeline.shapes.contact_sheet import make_contact_sheet
from pipeline.shapes.judge import Verdict, judge
from pipeline.shapes.palette import Caption

if TYPE_CHECKING:
    from PIL import Image

# Every colour and every shape twice; the embedded model draws them right with these seeds.
QUESTIONS = (
    (Caption("red", "circle", "blue"), 1),
    (Caption("green", "star", "black"), 2),
    (Caption("blue", "square", "yellow"), 3),
    (Caption("yellow", "triangle", "purple"), 4),
    (Caption("purple", "circle", "white"), 5),
    (Caption("orange", "star", "green"), 6),
    (Caption("white", "square", "red"), 7),
    (Caption("black", "triangle", "orange"), 8),
)
ENLARGED = 3  # 64 pixels are small on a screen


@dataclass(frozen=True)
class Moment:
    """One line of the timeline; seconds since the demo's start and of the step itself."""

    label: str
    began: float
    took: float


@dataclass(frozen=True)
class Shot:
    """The picture drawn for a caption, and the judge's verdict on it."""

    caption: Caption
    seed: int
    image: Image.Image = field(repr=False)
    verdict: Verdict

    @property
    def right(self) -> bool:
        """Whether foreground, shape and background are those of the caption."""
        return self.verdict.matches(self.caption)


@dataclass(frozen=True)
class Demo:
    """The result: the timeline, the pictures in order, and the file that shows them."""

    moments: tuple[Moment, ...]
    shots: tuple[Shot, ...]
    sheet: Path

    @property
    def right(self) -> bool:
        """Whether every picture shows what was asked for."""
        return all(shot.right for shot in self.shots)


class _Clock:
    def __init__(self) -> None:
        self._zero = time.monotonic()
        self.moments: list[Moment] = []

    @contextmanager
    def step(self, label: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.moments.append(Moment(label, began - self._zero, time.monotonic() - began))


def run_demo(root: Path, progress: Progress) -> Demo:
    """Run it for the embedded model under ``root``; writes model_artifacts/model.mar and out/demo.png."""
    mar, sheet = root / "model_artifacts" / "model.mar", root / "out" / "demo.png"
    clock = _Clock()
    with clock.step("build model.mar"):
        build(BuildConfig(str(root / "model_artifacts" / "shapes"), mar), progress)
    with _started(mar, clock) as url, Client(url) as client:
        first = _draw(client, clock, *QUESTIONS[0])
        with ThreadPoolExecutor(len(QUESTIONS)) as callers:
            others = callers.map(lambda question: _draw(client, clock, *question), QUESTIONS[1:])
            shots = (first, *others)
    _save_sheet(shots, sheet)
    moments = sorted(clock.moments, key=lambda moment: moment.began)
    return Demo(tuple(moments), shots, sheet)


@contextmanager
def _started(mar: Path, clock: _Clock) -> Iterator[str]:
    with clock.step("start, until the warm-up picture is there"):
        server = start(mar, ServeOptions())
    try:
        yield server.url
    finally:
        with clock.step("stop"):
            server.stop()


def _draw(client: Client, clock: _Clock, caption: Caption, seed: int) -> Shot:
    from PIL import Image

    with clock.step(str(caption)):
        (prediction,) = client.predict([{"prompt": str(caption), "seed": seed}])
    image = Image.open(io.BytesIO(prediction.data)).convert("RGB")
    return Shot(caption, seed, image, judge(image))


def _save_sheet(shots: Sequence[Shot], path: Path) -> None:
    width, height = shots[0].image.size
    enlarged = [shot.image.resize((width * ENLARGED, height * ENLARGED), 0) for shot in shots]
    labels = [
        f"{shot.caption.foreground} {shot.caption.shape} on {shot.caption.background}" for shot in shots
    ]
    path.parent.mkdir(exist_ok=True)
    make_contact_sheet(enlarged, labels, columns=4).save(path)
