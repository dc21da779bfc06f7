"""The safety checker in the engine: every decoded picture gets its verdict before anything else sees it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Union

from PIL import Image, ImageFilter

from handler.contract.job import Failure, Safety
from handler.contract.safety import SAFETY
from handler.engine.memory.elastic import NO_MEMORY, Elastic
from handler.model.model import Model
from handler.model.safety_checker import SafetyChecker

if TYPE_CHECKING:
    from handler.engine.accelerate.lanes import Lanes

NO_VERDICT = Failure(
    500, "no_verdict", "The safety checker's numbers for this picture are not finite, so it is not sent."
)
BLUR = 10
"""The blur's standard deviation is the longer side divided by this. After it no more than about ten waves
fit across the picture that are not lost in 8 bits, so no sharpening brings a figure back."""

Result = Union[Image.Image, Failure]


class Checked(NamedTuple):
    """What may be sent (None: the picture is withheld), and the verdict; None where nothing was checked."""

    result: Result | None
    safety: Safety | None


class PictureChecker:
    """Checks decoded pictures together; ``action`` is what is done with flagged ones: a key of SAFETY."""

    def __init__(self, model: Model, checker: SafetyChecker, action: str) -> None:
        self._checker, self._action = checker, action
        self._lanes: Lanes | None = getattr(model.unet, "lanes", None)
        self._elastic = Elastic(model.device)

    def check(self, results: Sequence[Result], most: int = sys.maxsize) -> list[Checked]:
        """The results in order, flagged pictures changed; ``most`` bounds the pictures of one call.

        A picture that the checker fails on is a Failure, and so is one that memory has no room for.
        """
        pictures = [result for result in results if not isinstance(result, Failure)]
        verdicts = iter(self._elastic.run("safety", pictures, self._flagged, most))
        return list(self._judged(results, verdicts))

    def _judged(
        self, results: Sequence[Result], verdicts: Iterator[bool | Failure | None]
    ) -> Iterator[Checked]:
        for result in results:
            if isinstance(result, Failure):
                yield Checked(result, None)
                continue
            verdict = next(verdicts)
            if verdict is None:
                yield Checked(NO_MEMORY, None)
            elif isinstance(verdict, Failure):
                yield Checked(verdict, None)
            else:
                yield self._act(result) if verdict else Checked(result, Safety(False, "sent"))

    def _act(self, picture: Image.Image) -> Checked:
        safety = Safety(True, SAFETY[self._action])
        if self._action == "withhold":
            return Checked(None, safety)
        return Checked(blurred(picture) if self._action == "blur" else picture, safety)

    def _flagged(self, pictures: Sequence[Image.Image]) -> list[bool | Failure]:
        if self._lanes is None:
            flags = self._checker.flagged(pictures)
        else:
            with self._lanes.all_cores():
                flags = self._checker.flagged(pictures)
        return [NO_VERDICT if flag is None else flag for flag in flags]


def blurred(picture: Image.Image) -> Image.Image:
    """The picture behind a Gaussian blur that leaves its colours and hides what it shows."""
    return picture.filter(ImageFilter.GaussianBlur(max(picture.size) / BLUR))
