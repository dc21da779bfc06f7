"""What travels through the generation core: a validated Job in, a Picture or a Failure out."""

from __future__ import annotations

from dataclasses import dataclass
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
class Picture:
    """A finished RGB picture and the seconds each stage took ("queue", "denoise", "decode")."""

    image: Image.Image
    seconds: dict[str, float]


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
