"""The settings of a picture as the text that other programs read from its file.

Automatic1111's web UI began it: the prompt, the negative prompt, then a line of ``Name: value`` pairs. A PNG
has it under the key ``parameters``, a JPEG or WebP as EXIF's UserComment. The last pair, ``marquee``, is our
receipt as quoted JSON; programs that do not know it pass over it. Torch-free.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

PNG_KEY = "parameters"
EXIF_IFD = 0x8769
USER_COMMENT = 0x9286
UNICODE = b"UNICODE\0"
MOST_JPEG_CHARACTERS = 3500
"""Prompt and negative prompt together: a JPEG's EXIF ends at 64 KiB, and a character can take 16 bytes."""
OURS = re.compile(r', marquee: ("(?:\\.|[^\\"])*")$')


def parameters_text(origin: Mapping[str, Any]) -> str:
    """The text for a receipt's ``origin``, which holds no times and no digest of the file."""
    settings = origin["settings"]
    pairs: dict[str, object] = {
        "Steps": settings["num_inference_steps"],
        "Sampler": settings["scheduler"],
        "CFG scale": settings["guidance_scale"],
        "Seed": origin["seed"],
        "Size": f"{settings['width']}x{settings['height']}",
        "Model hash": str(origin["weights_digest"] or "")[:10],
    }
    if "strength" in settings:
        pairs["Denoising strength"] = settings["strength"]
    pairs["Version"] = f"marquee {origin['versions'].get('marquee', '')}".strip()
    receipt = _quoted(json.dumps(origin, separators=(",", ":"), sort_keys=True, ensure_ascii=False))
    negative = settings["negative_prompt"]
    lines = [settings["prompt"], *([f"Negative prompt: {negative}"] if negative else [])]
    line = ", ".join(f"{name}: {value}" for name, value in pairs.items())
    return "\n".join([*lines, f"{line}, marquee: {receipt}"])


def origin_in(text: str) -> dict[str, Any] | None:
    """The receipt that ``parameters_text`` put into a text; None where there is none."""
    found = OURS.search(text)
    if found is None:
        return None
    try:
        origin = json.loads(json.loads(found.group(1)))
    except ValueError:
        return None
    return origin if isinstance(origin, dict) else None


def user_comment(text: str) -> bytes:
    """The text as EXIF's UserComment: the name of its character set, then big-endian UTF-16."""
    return UNICODE + text.encode("utf-16-be")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
