"""Outcomes as picture files with what is known of each, for answers that are not the contract's own."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from handler.contract.encode import encode
from handler.contract.job import Failure, Job, Outcome, Picture
from handler.contract.picture_metadata import parameters_text
from handler.contract.problem import Refusal
from handler.contract.receipt import make_receipt, origin

if TYPE_CHECKING:
    from PIL import Image

MEDIA_TYPES: Mapping[str, str] = {"jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}


@dataclass(frozen=True)
class DrawnFile:
    """A picture's file, and the receipt that says how to draw it again."""

    job: Job
    file: bytes
    receipt: Mapping[str, Any]

    @property
    def base64(self) -> str:
        return base64.b64encode(self.file).decode("ascii")

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES[self.job.output_format]


DrawnFiles = Sequence[DrawnFile]

WITHHELD = Refusal(
    400, "picture_withheld", "the safety checker flagged a picture, which is not sent; ask for another seed"
)


def drawn_files(
    jobs: Sequence[Job], outcomes: Sequence[Outcome | None], description: Mapping[str, Any]
) -> DrawnFiles | Refusal:
    """The files of all pictures, or the first failure."""
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            return Refusal(
                outcome.status,
                outcome.code,
                outcome.message,
                retry_after_seconds=outcome.retry_after_seconds,
            )
    pictures = [outcome for outcome in outcomes if isinstance(outcome, Picture)]
    files = [
        _file(job, picture, picture.image, description)
        for job, picture in zip(jobs, pictures)
        if picture.image is not None
    ]
    return files if len(files) == len(pictures) else WITHHELD


def _file(job: Job, picture: Picture, image: Image.Image, description: Mapping[str, Any]) -> DrawnFile:
    started = time.perf_counter()
    text = parameters_text(origin(job, picture, description)) if job.metadata else None
    file = encode(image, job.output_format, job.quality, text)
    seconds = time.perf_counter() - started
    return DrawnFile(job, file, make_receipt(job, picture, description, file, seconds))
