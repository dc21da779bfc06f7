"""The archive's safety checker: diffusers' own verdict on finished pictures, which it leaves as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from handler.model.digest import weights_digest
from handler.model.weights import ModelError, fill, no_storage, read_json

NAME, EXTRACTOR = "safety_checker", "feature_extractor"
CLASS = "StableDiffusionSafetyChecker"
CONCEPTS = ("concept_embeds", "concept_embeds_weights", "special_care_embeds", "special_care_embeds_weights")


@dataclass(frozen=True)
class SafetyChecker:
    """``module`` is diffusers' StableDiffusionSafetyChecker, ``extractor`` makes its input of pictures.

    ``digest``: one SHA-256 over the digests of the files of both.
    """

    module: Any
    extractor: Any
    digest: str

    @property
    def side(self) -> int:
        """Width and height in pixels of what it looks at; pictures are shrunk and cropped to it."""
        return int(self.module.config.vision_config.image_size)

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """The pictures' embeddings, (rows, width), of ``pixels`` (rows, 3, side, side)."""
        embeddings: torch.Tensor = self.module.visual_projection(self.module.vision_model(pixels)[1])
        return embeddings

    def flagged(self, pictures: Sequence[Image.Image]) -> list[bool | None]:
        """Whether each picture is flagged, as StableDiffusionPipeline.run_safety_checker says it.

        None where its numbers are not finite: diffusers then says no. Not for two threads at once.
        """
        weight = self.module.visual_projection.weight
        pixels = self.extractor(list(pictures), return_tensors="pt").pixel_values
        seen: list[torch.Tensor] = []
        hook = self.module.visual_projection.register_forward_hook(lambda *call: seen.append(call[-1]))
        try:
            # It paints flagged images black, so it gets some without a pixel.
            nothing = torch.zeros(len(pictures), 0)
            _, flags = self.module(clip_input=pixels.to(weight.device, weight.dtype), images=nothing)
        finally:
            hook.remove()
        finite = torch.isfinite(seen[0]).all(dim=1).tolist()
        return [bool(flag) if good else None for flag, good in zip(flags, finite)]


def load_safety_checker(
    folder: Path,
    index: Mapping[str, Any],
    digests: Mapping[str, str],
    device: torch.device,
    dtype: torch.dtype,
) -> SafetyChecker | None:
    """The checker of a diffusers folder, in the model's dtype; None where ``index`` names none.

    ``digests`` are those of the folder's files. Raises ModelError, which names the file, or OSError.
    """
    named = (index.get(NAME) or [None, None])[1]
    if named is None:
        return None
    if named != CLASS:
        raise ModelError(f"model_index.json names {named} as {NAME}; this handler serves {CLASS}")
    config, _ = (
        read_json(folder / NAME / "config.json"),
        read_json(folder / EXTRACTOR / "preprocessor_config.json"),
    )
    module = _empty(config)
    fill(module, NAME, folder / NAME, device, dtype)
    module.requires_grad_(False).eval()
    own = {name: digest for name, digest in digests.items() if name.startswith((f"{NAME}/", f"{EXTRACTOR}/"))}
    checker = SafetyChecker(module, _load_extractor(folder / EXTRACTOR), weights_digest(own))
    _check(checker, folder)
    return checker


def _empty(config: dict[str, Any]) -> Any:
    # Imported only where a checker is packed: the other archives start sooner.
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    with no_storage():
        return StableDiffusionSafetyChecker(CLIPConfig.from_dict(config))


def _load_extractor(folder: Path) -> Any:
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor.from_pretrained(folder, local_files_only=True)


def _check(checker: SafetyChecker, folder: Path) -> None:
    """Raises ModelError where the two parts do not fit, or where no picture could ever be flagged."""
    wanted = (1, 3, checker.side, checker.side)
    made = checker.extractor([Image.new("RGB", (2 * checker.side, checker.side))], return_tensors="pt")
    if tuple(made.pixel_values.shape) != wanted:
        raise ModelError(
            f"{folder / EXTRACTOR}/preprocessor_config.json makes pixels of shape"
            f" {tuple(made.pixel_values.shape)}; {NAME}/config.json asks for {wanted}"
        )
    for name in CONCEPTS:
        if not bool(torch.isfinite(getattr(checker.module, name)).all()):
            raise ModelError(f"{folder / NAME}: {name} holds numbers that are not finite")
