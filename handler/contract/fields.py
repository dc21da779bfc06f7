"""Every field a request can carry, in one table: its readers and its JSON Schema are made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from handler.contract.instance import STRENGTH, STRENGTH_WITH_MASK
from handler.contract.kinds import Deadline, Kind, Number, Scheduler, Seed, Switch, Text, Whole, Word
from handler.contract.lora_weights import LoraWeights
from handler.contract.settings import OUTPUT_FORMATS, RESPONSES, Settings
from handler.contract.source_picture import Picture64, PixelBudget

PICTURES = ("image", "mask_image")
"""The fields whose values no answer repeats, not even shortened."""

WHITE_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg=="
"""A png of one white pixel, which every limit allows."""

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
    **dict.fromkeys(("init_image", "init_images", "input_image", "source_image", "reference_image"), "image"),
    **dict.fromkeys(("img", "images", "image_url", "image_b64", "b64_json", "picture"), "image"),
    **dict.fromkeys(("mask", "mask_img", "inpaint_mask", "mask_b64", "mask_url", "maskimage"), "mask_image"),
    **dict.fromkeys(("denoising_strength", "denoise", "prompt_strength", "image_strength"), "strength"),
    **dict.fromkeys(("n", "num_images", "num_outputs", "num_samples", "n_samples"), "num_images_per_prompt"),
    **dict.fromkeys(("samplecount", "batch_size", "images_per_prompt", "n_iter"), "num_images_per_prompt"),
    **dict.fromkeys(("lora", "lora_name", "lora_weights", "lora_scale", "adapters", "adapter"), "loras"),
    **dict.fromkeys(("guidance_end", "guidance_cutoff", "cutoff_step_ratio", "cfg_end"), "guidance_until"),
    **dict.fromkeys(("profile", "quality_preset", "speed"), "preset"),
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
    """The fields in the order in which they are read, for these limits.

    The readers of pictures count the pixels of one request together, so each request needs fields of its own.
    """
    return (*_of_every_picture(settings), *_of_changed_pictures(settings), *_of_the_answer(settings))


def readers(settings: Settings) -> Mapping[str, Read]:
    """One reader per field name, for these limits; each takes a JSON value and raises FieldError."""
    return {field.name: field.read for field in fields(settings)}


def _of_every_picture(settings: Settings) -> tuple[Field, ...]:
    limits = settings.limits
    longest, most_steps = limits.max_prompt_characters, limits.max_num_inference_steps
    width = Whole(limits.min_width, limits.max_width, multiple_of=8)
    height = Whole(limits.min_height, limits.max_height, multiple_of=8)
    size = "in pixels; where an image comes without it the image's own, rounded down to a multiple of 8"
    seed = "The same seed draws the same picture; null: a random one. As a string from 2 ** 53 on."
    preset = "Settings of the archive by a name; a field that is given as well wins over it. Null: none."
    most_pictures = min(limits.max_images_per_prompt, limits.max_instances)
    pictures = "How many pictures to draw; the seeds of the further ones are seed + 1 and so on."
    loras = "The archive's LoRAs to follow; without a weight as strongly as the archive says."
    presets = Word(tuple(settings.presets), optional=True)
    return (
        Field("prompt", Text(longest), "What to draw.", ("a red circle on a blue background",)),
        Field("negative_prompt", Text(longest, blank=True), "What not to draw.", ("",)),
        Field("preset", presets, preset, (next(iter(settings.presets), None),)),
        Field("num_inference_steps", Whole(1, most_steps), "How many denoising steps.", (25,)),
        Field("guidance_scale", Number(0, limits.max_guidance_scale), "How closely to follow it.", (7.5,)),
        Field("guidance_until", Number(0, 1), "The share of the steps that are guided.", (0.4,)),
        Field("seed", Seed(), seed, (1,)),
        Field("width", width, f"The picture's width {size}.", (512,)),
        Field("height", height, f"The picture's height {size}.", (512,)),
        Field("scheduler", Scheduler(settings.schedulers), "How noise becomes a picture.", ("PNDM",)),
        Field("num_images_per_prompt", Whole(1, most_pictures), pictures, (1,)),
        Field("loras", LoraWeights(settings.loras), loras, (list(settings.loras)[:1],)),
    )


def _of_changed_pictures(settings: Settings) -> tuple[Field, ...]:
    limits, budget = settings.limits, PixelBudget(settings.limits)
    image, mask = Picture64("RGB", limits, budget), Picture64("L", limits, budget)
    file = f"{image.allowed}; null: none"
    painted = "Where to draw the image anew: white is drawn, black stays. It has the image's shape"
    strength = (
        f"How much of the image changes, 1: all. If not given {STRENGTH:g}, with mask_image"
        f" {STRENGTH_WITH_MASK:g}."
    )
    return (
        Field("image", image, f"A picture to change: {file}.", (WHITE_PIXEL,)),
        Field("mask_image", mask, f"{painted}: {file}.", (WHITE_PIXEL,)),
        Field("strength", Number(0, 1), strength, (0.6,)),
    )


def _of_the_answer(settings: Settings) -> tuple[Field, ...]:
    most_previews = settings.limits.max_previews
    return (
        Field("output_format", Word(OUTPUT_FORMATS), "The picture's file.", ("png",)),
        Field("quality", Whole(1, 100), "Of jpeg and webp.", (90,)),
        Field("response", Word(RESPONSES), "image: base64 text; full: an object with a receipt.", ("full",)),
        Field("metadata", Switch(), "Whether the picture's file carries its settings.", (True,)),
        Field("previews", Whole(0, most_previews), "Unfinished pictures to send in a stream.", (2,)),
        Field("stream", Switch(), "Whether events are sent before the answer.", (True,)),
        Field("deadline_seconds", Deadline(), "How long it may wait for its turn.", (30,)),
    )
