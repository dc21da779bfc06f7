"""The schedulers a request can name: canonical names, other spellings, and diffusers' class for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SchedulerKind:
    """A diffusers scheduler class by name, config entries it must have, and the most steps it takes."""

    class_name: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    max_steps: int = 1000


SCHEDULERS: Mapping[str, SchedulerKind] = {
    "PNDM": SchedulerKind("PNDMScheduler", {"skip_prk_steps": True, "steps_offset": 1}),  # as SD 1.5 ships it
    # StableDiffusionPipeline insists on this, because latents are not pixels.
    "DDIM": SchedulerKind("DDIMScheduler", {"clip_sample": False}),
    "Euler": SchedulerKind("EulerDiscreteScheduler"),
    "Euler ancestral": SchedulerKind("EulerAncestralDiscreteScheduler"),
    "DPM++ 2M": SchedulerKind("DPMSolverMultistepScheduler"),
    "UniPC": SchedulerKind("UniPCMultistepScheduler"),
    # diffusers refuses more steps than the 50 that LCMScheduler's original_inference_steps names.
    "LCM": SchedulerKind("LCMScheduler", max_steps=50),
}

OTHER_SPELLINGS: Mapping[str, str] = {
    "eulera": "Euler ancestral",
    "dpmpp2m": "DPM++ 2M",
    "dpmsolver": "DPM++ 2M",
}


def find_scheduler(name: str) -> str | None:
    """The canonical name for any spelling of it, case and punctuation aside, or a diffusers class name."""
    return _SPELLINGS.get(_plain(name))


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


_SPELLINGS: Mapping[str, str] = {
    **OTHER_SPELLINGS,
    **{_plain(name): name for name in SCHEDULERS},
    **{_plain(kind.class_name): name for name, kind in SCHEDULERS.items()},
}
