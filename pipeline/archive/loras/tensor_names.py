"""The names that peft, diffusers and kohya's tools give a LoRA's tensors.

peft: ``unet.PATH.lora_A.weight``, alone ``base_model.model.PATH.lora_A.weight``. diffusers before peft:
``unet.PATH.lora.down.weight``, ``unet.ATTENTION.processor.to_q_lora.down.weight``,
``text_encoder.PATH.lora_linear_layer.down.weight``. kohya: ``lora_unet_PATH.lora_down.weight`` and
``lora_unet_PATH.alpha`` with ``_`` for each dot of the path. Source: diffusers/utils/state_dict_utils.py and
diffusers/loaders/lora_conversion_utils.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.archive.loras.model_layers import Layers, ModelLayer, flat
from pipeline.archive.model_folder import TEXT_PREFIX

FORMS = (
    (re.compile(r"(.+)\.lora_A(\.[\w-]+)?\.weight"), "down"),
    (re.compile(r"(.+)\.lora_B(\.[\w-]+)?\.weight"), "up"),
    (re.compile(r"(.+)(\.lora\.|\.lora_linear_layer\.|_lora\.|\.lora_)down\.weight"), "down"),
    (re.compile(r"(.+)(\.lora\.|\.lora_linear_layer\.|_lora\.|\.lora_)up\.weight"), "up"),
    (re.compile(r"(.+?)(\.lora|\.lora_linear_layer|_lora)?\.alpha"), "alpha"),
)
OTHERS = (
    (re.compile(r"dora_scale|lora_magnitude_vector"), "DoRA, which marquee does not serve"),
    (
        re.compile(r"lora_mid|\.hada_|\.lokr_|\.oft_|oft_blocks|\.on_input|\.diff(_b)?$"),
        "LyCORIS (LoCon, LoHa, LoKr)",
    ),
    (re.compile(r"lora_(A|B|up|down)(\.[\w-]+)?\.bias|\.bias$"), "a bias beside a LoRA"),
)
PEFT_PREFIX = re.compile(r"^(base_model\.model\.)+")
PREFIXES = {
    "unet.": "unet",
    "text_encoder.": "text_encoder",
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
}
OLD_TEXT_NAMES = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


@dataclass(frozen=True)
class NamedTensor:
    """The meaning of a tensor's name: down, up or alpha of the layer that ``stem`` names."""

    stem: str
    kind: str


def read_name(name: str) -> NamedTensor | None:
    """None for a name that none of the three tools writes."""
    for form, kind in FORMS:
        if match := form.fullmatch(name):
            return NamedTensor(match[1], kind)
    return None


def other_kind(name: str) -> str:
    """The kind of adapter that such a tensor belongs to, where marquee does not serve it; else empty."""
    return next((kind for form, kind in OTHERS if form.search(name)), "")


def find_layer(stem: str, layers: Layers) -> ModelLayer | None:
    """The layer that a stem names; None where the model has no such layer."""
    for component, path in _readings(PEFT_PREFIX.sub("", stem)):
        if layer := layers.get((component, path)):
            return layer
    return None


def _readings(stem: str) -> Iterator[tuple[str, str]]:
    """Components and flat paths that a stem may mean."""
    for prefix, component in PREFIXES.items():
        if stem.startswith(prefix):
            found = [(component, stem.removeprefix(prefix))]
            break
    else:
        found = [("unet", stem), ("text_encoder", stem)]
    for component, path in found:
        bare = path.replace(".processor", "")
        if component == "unet":
            yield component, flat(bare)
            yield component, flat(f"{bare}.0")  # the old to_out
            continue
        yield component, (text := flat(bare).removeprefix(flat(TEXT_PREFIX)))
        for old, new in OLD_TEXT_NAMES.items():
            if text.endswith(f"_{old}"):
                yield component, text.removesuffix(old) + new
