"""The words of the embedded model: eight colours, four shapes, one sentence."""

from __future__ import annotations

import re
from dataclasses import dataclass

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 170, 70),
    "blue": (50, 90, 220),
    "yellow": (240, 210, 50),
    "purple": (140, 60, 180),
    "orange": (245, 140, 40),
    "white": (245, 245, 245),
    "black": (25, 25, 25),
}
SHAPES = ("circle", "square", "triangle", "star")

_CAPTION = re.compile(r"an? (\w+) (\w+) on an? (\w+) background")


@dataclass(frozen=True)
class Caption:
    """One thing the model can be asked for; ``str()`` is the prompt."""

    foreground: str
    shape: str
    background: str

    def __str__(self) -> str:
        return f"a {self.foreground} {self.shape} on a {self.background} background"


def parse_caption(prompt: str) -> Caption | None:
    """The caption that a prompt is, or None where the model was not trained on such a sentence."""
    match = _CAPTION.fullmatch(" ".join(prompt.lower().split()))
    if match is None:
        return None
    foreground, shape, background = match.groups()
    if foreground not in COLOURS or background not in COLOURS or shape not in SHAPES:
        return None
    return Caption(foreground, shape, background)


def varied_captions() -> list[Caption]:
    """32 of the captions: every shape in every colour once, on changing backgrounds."""
    captions = all_captions()
    return [captions[7 * number + number % 7] for number in range(32)]


def all_captions() -> list[Caption]:
    """The 224 captions (8 foregrounds x 7 other backgrounds x 4 shapes), always in the same order."""
    return [
        Caption(foreground, shape, background)
        for shape in SHAPES
        for foreground in COLOURS
        for background in COLOURS
        if foreground != background
    ]
