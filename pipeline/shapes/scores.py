"""Draws all 224 captions with a served folder and counts the right pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.shapes.judge import Verdict, judge
from pipeline.shapes.palette import Caption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

_BATCH = 32


@dataclass(frozen=True)
class Asked:
    """A caption with the seed it is asked with."""

    caption: Caption
    seed: int


@dataclass(frozen=True)
class Scores:
    """Shares of right answers, 0 to 1, and of pictures without a mistake; ``wrong`` lists the others."""

    foreground: float
    background: float
    shape: float
    right: float
    wrong: list[tuple[Asked, Verdict]]


def draw_all(pipe: Any, asked: Sequence[Asked], steps: int, guidance: float) -> list[Image]:
    """One picture for each question, in batches, each from its own CPU generator."""
    import torch

    pictures: list[Image] = []
    for start in range(0, len(asked), _BATCH):
        part = asked[start : start + _BATCH]
        answer = pipe(
            [str(one.caption) for one in part],
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=[torch.Generator("cpu").manual_seed(one.seed) for one in part],
        )
        pictures += answer.images
    return pictures


def score(asked: Sequence[Asked], pictures: Sequence[Image]) -> Scores:
    """Judge the picture of each question."""
    verdicts = [judge(picture) for picture in pictures]
    pairs = list(zip(asked, verdicts, strict=True))

    def share(word: str) -> float:
        right = [getattr(one.caption, word) == getattr(seen, word) for one, seen in pairs]
        return right.count(True) / len(right)

    wrong = [(one, seen) for one, seen in pairs if not seen.matches(one.caption)]
    right = 1 - len(wrong) / len(pairs)
    return Scores(share("foreground"), share("background"), share("shape"), right, wrong)
