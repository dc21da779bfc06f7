"""From the fields of an instance to the pictures that it asks for. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from handler.contract.job import Job, SourcePicture
from handler.contract.kinds import MAX_SEED
from handler.contract.settings import Settings
from handler.contract.source_picture import resized

STRENGTH = 0.8
STRENGTH_WITH_MASK = 1.0
"""Where an image comes without a strength; those of diffusers' two pipelines."""

NOT_OF_A_JOB = ("preset", "num_images_per_prompt")


@dataclass(frozen=True)
class Settled:
    """All fields of an instance, with what it does not say filled in.

    ``own_size``: the width, the height or both are those of its image, rounded down to multiples of 8.
    """

    values: dict[str, Any]
    own_size: bool


def settle(settings: Settings, parameters: Mapping[str, Any], own: Mapping[str, Any]) -> Settled:
    """An instance's ``own`` fields win over the request's ``parameters``, those over the preset, which is
    named in one of the two, and the preset over the archive's defaults. ``rules.UNREAD`` values stay so.
    """
    said = {**parameters, **own}
    chosen = {**settings.presets.get(said.get("preset"), {}), **said}  # type: ignore[arg-type]
    values = {**vars(settings.defaults), **chosen}
    own_size = False
    if isinstance(image := values.get("image"), SourcePicture):
        for name, side in (("width", image.image.width), ("height", image.image.height)):
            if name not in chosen:
                values[name], own_size = side // 8 * 8, True
    if values.get("image") is not None:
        default = STRENGTH if values.get("mask_image") is None else STRENGTH_WITH_MASK
        values.setdefault("strength", default)
    return Settled(values, own_size)


def make_jobs(settled: Settled, draw_seed: Callable[[], int]) -> tuple[Job, ...]:
    """A job for each picture, with the seeds s, s + 1 and so on; after 2**64 - 1 comes 0.

    Pictures that came in are resized here: large ones would fill the memory while they wait.
    """
    fields = {name: value for name, value in settled.values.items() if name not in NOT_OF_A_JOB}
    for name in ("image", "mask_image"):
        if isinstance(picture := fields.get(name), SourcePicture):
            fields[name] = resized(picture, fields["width"], fields["height"])
    first = fields.pop("seed", None)
    if first is None:
        first = draw_seed()
    count = settled.values.get("num_images_per_prompt", 1)
    return tuple(Job(**fields, seed=(first + number) % (MAX_SEED + 1)) for number in range(count))
