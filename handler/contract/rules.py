"""The rules that take more than one field of an instance, for the fields that could be read. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from handler.contract.job import SourcePicture
from handler.contract.limits import Limits
from handler.contract.picture_metadata import MOST_JPEG_CHARACTERS
from handler.contract.schedulers import SCHEDULERS

UNREAD: Any = object()
"""Stands for a value that was refused, so that no rule is applied to it a second time."""

SLACK = 8
"""Pixels that a side of a mask may be off its picture's shape: drawn sizes are rounded to eights."""


class Broken(NamedTuple):
    """A rule that does not hold: the field to change, its value, what is allowed, and a sentence."""

    field: str
    value: Any
    allowed: str
    message: str


def broken_rules(values: Mapping[str, Any], own_size: bool, limits: Limits) -> Iterator[Broken]:
    """All rules that these fields break.

    ``values`` has defaults filled in; ``own_size``: the picture's own width or height is among them.
    """
    yield from _size(values, own_size, limits)
    yield from _steps(values)
    yield from _picture(values)
    yield from _metadata(values)


def steps_left(num_inference_steps: int, strength: float) -> int:
    """Steps that are left where a picture is changed with ``strength``, as diffusers' ``get_timesteps``."""
    return min(int(num_inference_steps * strength), num_inference_steps)


def no_step_left(num_inference_steps: int, strength: float) -> str | None:
    """Why so little of a picture cannot be changed; None where a step is left."""
    if steps_left(num_inference_steps, strength) >= 1:
        return None
    return (
        f"strength is {strength:g} and leaves no step of num_inference_steps {num_inference_steps};"
        f" it must be {least_strength(num_inference_steps):g} or more"
    )


def least_strength(num_inference_steps: int) -> float:
    """The least strength, in thousandths, that leaves a step."""
    return math.ceil(1000 / num_inference_steps) / 1000


def _size(values: Mapping[str, Any], own_size: bool, limits: Limits) -> Iterator[Broken]:
    width, height = values["width"], values["height"]
    if UNREAD in (width, height):
        return
    if own_size:
        yield from _own_size(values["image"], width, height, limits)
    elif width * height > limits.max_pixels:
        size, allowed = f"{width}x{height}", f"at most {limits.max_pixels} pixels"
        message = f"{size} has {width * height} pixels; allowed are {allowed}"
        yield Broken("width, height", size, allowed, message)


def _own_size(image: SourcePicture, width: int, height: int, limits: Limits) -> Iterator[Broken]:
    """Without width or height a picture is drawn in its own size, which must be one that may be asked for."""
    if (
        limits.min_width <= width <= limits.max_width
        and limits.min_height <= height <= limits.max_height
        and width * height <= limits.max_pixels
    ):
        return
    own = f"{image.image.width}x{image.image.height}"
    allowed = (
        f"{limits.min_width} to {limits.max_width} wide, {limits.min_height} to {limits.max_height} high,"
        f" at most {limits.max_pixels} pixels"
    )
    fitting = fitting_size(image.image.width, image.image.height, limits)
    cure = f"; send width and height, for example {fitting[0]} and {fitting[1]}" if fitting else ""
    message = f"image is {own} and would be drawn as {width}x{height}; allowed are {allowed}{cure}"
    yield Broken("image", own, allowed, message)


def fitting_size(width: int, height: int, limits: Limits) -> tuple[int, int] | None:
    """A size of about this shape that may be asked for, in pixels; None where there is none."""
    scale = min(limits.max_width / width, limits.max_height / height)
    scale = min(1.0, scale, math.sqrt(limits.max_pixels / (width * height)))
    scale = max(scale, limits.min_width / width, limits.min_height / height)
    wide = _eights(width * scale, limits.min_width, limits.max_width)
    high = _eights(height * scale, limits.min_height, limits.max_height)
    return (wide, high) if wide * high <= limits.max_pixels else None


def _eights(side: float, least: int, most: int) -> int:
    return max(-(-least // 8), min(int(side) // 8, most // 8)) * 8


def _steps(values: Mapping[str, Any]) -> Iterator[Broken]:
    steps, scheduler = values["num_inference_steps"], values["scheduler"]
    if UNREAD not in (steps, scheduler) and steps > SCHEDULERS[scheduler].max_steps:
        allowed = f"1 to {SCHEDULERS[scheduler].max_steps} with the scheduler {scheduler}"
        message = f"num_inference_steps is {steps}; allowed are {allowed}"
        yield Broken("num_inference_steps", steps, allowed, message)


def _picture(values: Mapping[str, Any]) -> Iterator[Broken]:
    image, mask, strength = (values.get(name) for name in ("image", "mask_image", "strength"))
    if image is None:
        if mask is not None:
            message = "mask_image says where to paint an image, and there is none"
            yield Broken("mask_image", None, "mask_image together with image", message)
        if strength is not None:
            shown = None if strength is UNREAD else strength
            message = "strength says how much of an image changes, and there is none"
            yield Broken("strength", shown, "strength together with image", message)
        return
    if UNREAD not in (image, mask) and mask is not None:
        yield from _mask(image, mask)
    steps = values["num_inference_steps"]
    if UNREAD in (strength, steps) or strength is None:
        return
    if reason := no_step_left(steps, strength):
        allowed = f"{least_strength(steps):g} to 1 with num_inference_steps {steps}"
        yield Broken("strength", strength, allowed, reason)


def _mask(image: SourcePicture, mask: SourcePicture) -> Iterator[Broken]:
    """diffusers stretches a mask over its picture, so a mask of another shape would mark the wrong places."""
    width, height = image.image.size
    mask_width, mask_height = mask.image.size
    if abs(mask_width * height - mask_height * width) > SLACK * (width + height):
        size, allowed = f"{mask_width}x{mask_height}", f"a mask of the image's shape, best {width}x{height}"
        message = f"mask_image is {size} and the image {width}x{height}; it must be {allowed}"
        yield Broken("mask_image", size, allowed, message)


def _metadata(values: Mapping[str, Any]) -> Iterator[Broken]:
    texts = (values.get("prompt", ""), values["negative_prompt"])
    if values.get("metadata") is not True or values["output_format"] != "jpeg" or UNREAD in texts:
        return
    characters = sum(map(len, texts))
    if characters > MOST_JPEG_CHARACTERS:
        allowed = f"at most {MOST_JPEG_CHARACTERS} characters of prompts in a jpeg, or png or webp"
        message = f"metadata: the prompts have {characters} characters; allowed are {allowed}"
        yield Broken("metadata", True, allowed, message)
