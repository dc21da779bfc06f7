"""The fields of a request as options of ``marquee predict``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.errors import MarqueeError

MOST_IMAGES = 1024
"""More than any server draws in one request; the server's own limit is what counts."""

LORA_FORM = "write --lora NAME or --lora NAME:WEIGHT, for example --lora outline:0.8"


@dataclass(frozen=True)
class PictureFields:
    """What is to be drawn beside the prompt: names and meanings of the request's fields, None: not said."""

    seed: Annotated[
        str | None, typer.Option(help="The same seed draws the same picture; further ones take the next.")
    ] = None
    num_inference_steps: Annotated[int | None, typer.Option("--steps", help="Denoising steps.")] = None
    guidance_scale: Annotated[
        float | None, typer.Option("--guidance", help="How closely to follow the prompt.")
    ] = None
    guidance_until: Annotated[
        float | None, typer.Option(help="The share of the steps that are guided, 0 to 1.")
    ] = None
    negative_prompt: Annotated[str | None, typer.Option("--negative", help="What not to draw.")] = None
    preset: Annotated[
        str | None, typer.Option(help="fast, quality or another of the archive's; other options win over it.")
    ] = None
    image: Annotated[Path | None, typer.Option(help="A png, jpeg or webp file; this picture is changed.")] = (
        None
    )
    mask_image: Annotated[
        Path | None, typer.Option(help="With --image: a file that is white where to draw anew.")
    ] = None
    strength: Annotated[float | None, typer.Option(help="With --image: how much of it changes, 0 to 1.")] = (
        None
    )
    num_images_per_prompt: Annotated[
        int | None,
        typer.Option(
            "--num-images-per-prompt", "--images", min=1, max=MOST_IMAGES, help="Pictures of each prompt."
        ),
    ] = None
    loras: Annotated[
        list[str] | None,
        typer.Option("--lora", help="NAME or NAME:WEIGHT of a LoRA of the archive; repeatable."),
    ] = None
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None
    scheduler: Annotated[str | None, typer.Option(help="PNDM, DDIM, Euler, ...")] = None
    output_format: Annotated[str | None, typer.Option("--format", help="jpeg, png or webp.")] = None
    quality: Annotated[int | None, typer.Option(help="Of jpeg and webp, 1 to 100.")] = None
    metadata: Annotated[
        bool, typer.Option("--metadata", help="Write the settings into the picture's file.")
    ] = False

    def parameters(self) -> dict[str, Any]:
        """The request's ``parameters``, with files read and LoRAs as objects; what is not said is left out.

        Raises MarqueeError that names the option.
        """
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        said = {name: value for name, value in given.items() if value is not None and value is not False}
        if "loras" in said:
            said["loras"] = parse_loras(said["loras"])
        return {**said, **self._pictures()}

    def _pictures(self) -> dict[str, str]:
        """The files as base64."""
        from pipeline.client.source_files import read_source

        for name, value in (("--mask-image", self.mask_image), ("--strength", self.strength)):
            if value is not None and self.image is None:
                raise MarqueeError(f"{name} needs a picture to change", "name its file: --image FILE")
        files = {"image": ("--image", self.image), "mask_image": ("--mask-image", self.mask_image)}
        return {
            name: read_source(option, file).base64
            for name, (option, file) in files.items()
            if file is not None
        }


def parse_loras(options: Sequence[str]) -> list[dict[str, Any]]:
    """The values of all ``--lora`` options as the request's ``loras``. Raises MarqueeError."""
    found = [_lora(option) for option in options]
    names = [one["name"] for one in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise MarqueeError(f"--lora names {twice[0][:100]!r} twice", "name each LoRA once")
    return found


def _lora(option: str) -> dict[str, Any]:
    name, separator, weight = option.partition(":")
    if not name:
        raise MarqueeError(f"--lora {option[:100]!r} names no LoRA", LORA_FORM)
    if not separator:
        return {"name": name}
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise MarqueeError(f"--lora {option[:100]!r}: {weight[:80]!r} is no weight, a number is", LORA_FORM)
    return {"name": name, "weight": number}
