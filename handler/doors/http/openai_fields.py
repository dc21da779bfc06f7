"""OpenAI's fields of an images request as an instance of our contract."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from handler.contract.fields import fields
from handler.contract.problem import Refusal, brief, nearest
from handler.contract.settings import Settings
from handler.doors.http.renamed_fields import field_problem

HARMLESS = frozenset(
    {"moderation", "safety_identifier", "style", "user", "input_fidelity", "generator_device"}
)
"""Taken and not used: what is drawn does not depend on them."""

NAMES: Mapping[str, str] = {
    "n": "num_images_per_prompt",
    "output_compression": "quality",
    "steps": "num_inference_steps",
    "step": "num_inference_steps",
    "cfg_scale": "guidance_scale",
}
"""OpenAI's and other servers' names for our fields; ``quality`` is OpenAI's own, a preset of the archive."""

PRESETS: Mapping[str, str] = {
    "low": "fast",
    "medium": "",
    "auto": "",
    "standard": "",
    **dict.fromkeys(("high", "hd", "xhigh", "max"), "quality"),
}
"""OpenAI's quality by our preset; "": the archive's defaults."""

OPENAIS_MODELS = ("gpt-image-", "dall-e-", "chatgpt-image-")
"""Names that a client brings along; they stand for the model that is served."""

SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
MOST_PICTURES = 10
OPTIONS = ("model", "size", "quality", "response_format", "background", "stream", "partial_images")
OURS_NOT_TAKEN = ("response", "num_images_per_prompt", "image", "mask_image")
"""Fields of the contract that have another name here, or come as files."""


def as_instance(given: Mapping[str, Any], settings: Settings, model_name: str) -> dict[str, Any] | Refusal:
    """The instance that these fields mean; the first that cannot be followed is refused."""
    own = {field.name for field in fields(settings)} - {*OURS_NOT_TAKEN, "quality"}
    known = {*own, *NAMES, *OPTIONS}
    instance: dict[str, Any] = {"output_format": "png"}
    for name, value in given.items():
        if value is None or name in HARMLESS or name in OPTIONS:
            continue
        if name not in known:
            guess = nearest(name, sorted(known))
            message = f"unknown parameter {brief(name)}" + (f"; did you mean {guess}?" if guess else "")
            return field_problem(str(brief(name)), None, f"fields: {', '.join(sorted(known))}", message)
        instance[NAMES.get(name, name)] = value
    if "output_compression" in given and given["output_compression"] == 0:
        instance["quality"] = 1  # OpenAI's range begins at 0
    options = _options(given, settings, model_name)
    return options if isinstance(options, Refusal) else {**options, **instance}


def _options(given: Mapping[str, Any], settings: Settings, model_name: str) -> dict[str, Any] | Refusal:
    chosen: dict[str, Any] = {}
    for refusal in (_wrong_model(given, model_name), _wrong_words(given)):
        if refusal is not None:
            return refusal
    size = given.get("size")
    if size not in (None, "auto"):
        sides = SIZE.fullmatch(size) if isinstance(size, str) else None
        if sides is None:
            message = f"size is {brief(size)}; it must be such as 512x512, or auto"
            return field_problem("size", size, "WIDTHxHEIGHT or auto", message)
        chosen.update(width=int(sides[1]), height=int(sides[2]))
    preset = PRESETS[given.get("quality") or "auto"]
    if preset in settings.presets and "preset" not in given:
        chosen["preset"] = preset
    pictures = given.get("n")
    if isinstance(pictures, (int, float)) and not 1 <= pictures <= MOST_PICTURES:
        return field_problem(
            "n", pictures, f"1 to {MOST_PICTURES}", f"n is {brief(pictures)}; it must be 1 to 10"
        )
    return chosen


def _wrong_model(given: Mapping[str, Any], model_name: str) -> Refusal | None:
    model = given.get("model")
    if model in (None, "", "marquee", model_name):
        return None
    if isinstance(model, str) and model.startswith(OPENAIS_MODELS):
        return None
    message = f"the model {brief(model)} does not exist; this server has {model_name}"
    refusal = field_problem("model", model, model_name, message)
    return Refusal(404, "model_not_found", message, refusal.problems)


def _wrong_words(given: Mapping[str, Any]) -> Refusal | None:
    words = {
        "quality": (*PRESETS, None),
        "response_format": ("b64_json", None),
        "background": ("opaque", "auto", None),
    }
    for name, allowed in words.items():
        value = given.get(name)
        if isinstance(value, (list, Mapping)) or value not in allowed:
            known = ", ".join(word for word in allowed if word)
            return field_problem(name, value, known, f"{name} is {brief(value)}; it must be one of {known}")
    return None
