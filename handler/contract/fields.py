"""Every field a request can carry, in one table: its readers and its JSON Schema are made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from handler.contract.kinds import Deadline, Kind, Number, Scheduler, Seed, Switch, Text, Whole, Word
from handler.contract.settings import OUTPUT_FORMATS, RESPONSES, Settings

OF_THE_REQUEST = ("stream",)
"""The fields that concern the whole answer: they stand beside the instances or in the parameters."""

ALIASES = {
    "steps": "num_inference_steps",
    "num_steps": "num_inference_steps",
    "inference_steps": "num_inference_steps",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "guidance": "guidance_scale",
    "sampler": "scheduler",
    "sampler_name": "scheduler",
    "image_format": "output_format",
    "format": "output_format",
    "negative": "negative_prompt",
    "text": "prompt",
    "h": "height",
    "w": "width",
    "deadline": "deadline_seconds",
    "timeout": "deadline_seconds",
}
"""What other programs call our fields: only suggested, never accepted."""

Read = Callable[[Any], Any]


@dataclass(frozen=True)
class Field:
    """A field of an instance and of the parameters; ``examples`` are JSON values that its kind takes."""

    name: str
    kind: Kind
    description: str
    examples: tuple[Any, ...] = ()

    @property
    def read(self) -> Read:
        """From a JSON value to the checked one; raises FieldError."""
        return partial(self.kind.read, self.name)

    def schema(self) -> dict[str, Any]:
        """The field's JSON Schema (2020-12)."""
        examples = {"examples": list(self.examples)} if self.examples else {}
        return {"description": self.description, **self.kind.schema(), **examples}


def fields(settings: Settings) -> tuple[Field, ...]:
    """The fields in the order in which they are read, for these limits."""
    limits = settings.limits
    longest, most_steps = limits.max_prompt_characters, limits.max_num_inference_steps
    width = Whole(limits.min_width, limits.max_width, multiple_of=8)
    height = Whole(limits.min_height, limits.max_height, multiple_of=8)
    seed = "The same seed draws the same picture; null: a random one. As a string from 2 ** 53 on."
    return (
        Field("prompt", Text(longest), "What to draw.", ("a red circle on a blue background",)),
        Field("negative_prompt", Text(longest, blank=True), "What not to draw.", ("",)),
        Field("num_inference_steps", Whole(1, most_steps), "How many denoising steps.", (25,)),
        Field("guidance_scale", Number(0, limits.max_guidance_scale), "How closely to follow it.", (7.5,)),
        Field("guidance_until", Number(0, 1), "The share of the steps that are guided.", (0.4,)),
        Field("seed", Seed(), seed, (1,)),
        Field("width", width, "Pixels.", (512,)),
        Field("height", height, "Pixels.", (512,)),
        Field("scheduler", Scheduler(settings.schedulers), "How noise becomes a picture.", ("PNDM",)),
        Field("output_format", Word(OUTPUT_FORMATS), "The picture's file.", ("png",)),
        Field("quality", Whole(1, 100), "Of jpeg and webp.", (90,)),
        Field("response", Word(RESPONSES), "image: base64 text; full: an object with a receipt.", ("full",)),
        Field("metadata", Switch(), "Whether the picture's file carries its settings.", (True,)),
        Field("previews", Whole(0, limits.max_previews), "Unfinished pictures to send in a stream.", (2,)),
        Field("stream", Switch(), "Whether events are sent before the answer.", (True,)),
        Field("deadline_seconds", Deadline(), "How long it may wait for its turn.", (30,)),
    )


def readers(settings: Settings) -> Mapping[str, Read]:
    """One reader per field name, for these limits; each takes a JSON value and raises FieldError."""
    return {field.name: field.read for field in fields(settings)}
