"""What travels through the generation core: a validated Job in, a Picture or a Failure out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Job:
    """One picture to draw, every field checked against the archive's limits and filled with its defaults.

    ``seed`` is 0 to 2**64 - 1; ``width`` and ``height`` are pixels, multiples of 8; ``scheduler`` is a key of
    ``SCHEDULERS``; ``deadline_seconds`` bounds the wait in the queue, None: no deadline.
    """

    prompt: str
    negative_prompt: str
    num_inference_steps: int
    guidance_scale: float
    seed: int
    width: int
    height: int
    scheduler: str
    output_format: str
    quality: int
    response: str
    deadline_seconds: float | None = None


@dataclass(frozen=True)
class CutText:
    """A text with more tokens than the text encoder takes; ``removed`` is the end that was not used.

    The special tokens at both ends do not count.
    """

    tokens: int
    tokens_taken: int
    removed: str


@dataclass(frozen=True)
class Picture:
    """A finished RGB picture and the seconds each stage took ("queue", "denoise", "decode").

    ``cut_texts`` has the fields ("prompt", "negative_prompt") whose texts were too long.
    """

    image: Image.Image
    seconds: dict[str, float]
    cut_texts: Mapping[str, CutText] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """Why there is no picture: an HTTP status, a stable code in snake_case and a sentence for the caller.

    ``retry_after_seconds`` goes with 429: when it is worth asking again.
    """

    status: int
    code: str
    message: str
    retry_after_seconds: int | None = None


Outcome = Union[Picture, Failure]
