"""Reads one LoRA file and checks it against the model; its parts then have the model's names."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.archive.layout import PICKLE_SUFFIXES, read_blocks
from pipeline.archive.loras.model_layers import Layers, ModelLayer
from pipeline.archive.loras.option import LoraFile
from pipeline.archive.loras.tensor_names import find_layer, other_kind, read_name
from pipeline.archive.regular import open_regular
from pipeline.archive.safetensors_files import (
    FLOATS,
    LARGEST_HEADER_BYTES,
    NotSafetensors,
    StoredTensor,
    parse_header,
    read_tensors,
)
from pipeline.errors import MarqueeError

MOST_RANK = 512
"""The largest ranks in use are 256; SD 1.5's narrowest layers have 320 inputs."""
DIFFUSERS_METADATA = "lora_adapter_metadata"
PEFT_CONFIG = "adapter_config.json"
MOST_CONFIG_BYTES = 1 << 20
SERVED = "marquee serves LoRAs of linear layers and 1x1 convolutions of this model's UNet and text encoder"


@dataclass(frozen=True)
class LoraPart:
    """One layer's part of a LoRA; ``scale`` is alpha over rank, by which ``up`` is multiplied."""

    layer: ModelLayer
    down: StoredTensor
    up: StoredTensor
    scale: float


@dataclass(frozen=True)
class CheckedLora:
    """A LoRA that fits the model, its parts in the order of their layers."""

    file: LoraFile
    parts: tuple[LoraPart, ...]


def read_lora(lora: LoraFile, layers: Layers) -> CheckedLora:
    """Read a file's header and all its values; raises MarqueeError that names a part marquee cannot serve."""
    tensors, metadata = _read_header(lora)
    groups = _group(lora, tensors, layers)
    settings = _adapter_settings(lora, metadata)
    parts = []
    for layer, found in sorted(groups.items(), key=lambda item: (item[0].component, item[0].path)):
        for kind in ("down", "up"):
            if kind not in found:
                given = next(iter(found.values())).name
                raise _refused(lora, f"{given} has no {kind} tensor beside it", "name a complete file")
        down, up = found["down"], found["up"]
        _check_shapes(lora, layer, down, up)
        for tensor in (down, up):
            _check_values(lora, tensor)
        parts.append(LoraPart(layer, down, up, _scale(lora, layer, found, settings)))
    if not parts:
        raise _refused(lora, "the file holds no LoRA", "name the .safetensors file that the training wrote")
    return CheckedLora(lora, tuple(parts))


def _refused(lora: LoraFile, reason: str, cure: str) -> MarqueeError:
    return MarqueeError(f"--lora {lora.name}: {lora.path}: {reason}", cure)


def _read_header(lora: LoraFile) -> tuple[tuple[StoredTensor, ...], Mapping[str, Any]]:
    cure = "a LoRA is packed only from a .safetensors file; a pickle can run any code when it is loaded"
    if lora.path.suffix.lower() in PICKLE_SUFFIXES:
        raise _refused(lora, "it is a pickle by its name", cure)
    with open_regular(lora.path, f"name the LoRA's file: --lora {lora.name}=FILE") as file:
        try:
            size = file.seek(0, 2)
            file.seek(0)
            tensors = read_tensors(file, size)
            file.seek(0)
            length = int.from_bytes(file.read(8), "little")
            header = parse_header(file.read(min(length, LARGEST_HEADER_BYTES)))
        except NotSafetensors as error:
            raise _refused(lora, str(error), cure) from error
        except OSError as error:
            raise _refused(lora, f"it cannot be read: {error.strerror}", "name another file") from error
    return tensors, header.get("__metadata__", {})


def _group(
    lora: LoraFile, tensors: tuple[StoredTensor, ...], layers: Layers
) -> dict[ModelLayer, dict[str, StoredTensor]]:
    groups: dict[ModelLayer, dict[str, StoredTensor]] = {}
    for tensor in tensors:
        shown = repr(tensor.name[:200])
        if kind := other_kind(tensor.name):
            raise _refused(lora, f"{shown} belongs to {kind}", f"train or extract a plain LoRA; {SERVED}")
        named = read_name(tensor.name)
        if named is None:
            raise _refused(
                lora,
                f"{shown} is not the name of a LoRA's tensor in peft, diffusers or kohya's tools",
                SERVED,
            )
        layer = find_layer(named.stem, layers)
        if layer is None:
            raise _refused(
                lora,
                f"{shown} is for a layer that this model does not have",
                f"use a LoRA that was trained on a Stable Diffusion 1.x model; {SERVED}",
            )
        group = groups.setdefault(layer, {})
        if named.kind in group:
            raise _refused(
                lora, f"{shown} and {group[named.kind].name!r} are for the same layer", "remove one of them"
            )
        group[named.kind] = tensor
    return groups


def _check_shapes(lora: LoraFile, layer: ModelLayer, down: StoredTensor, up: StoredTensor) -> None:
    outputs, inputs, *kernel = layer.weight
    if not layer.is_pointwise or any(side != 1 for tensor in (down, up) for side in tensor.shape[2:]):
        raise _refused(
            lora,
            f"{down.name!r} has shape {down.shape} for a layer of shape {layer.weight}: it is a LoCon's,"
            " which changes larger convolutions",
            f"train a LoRA of the attention layers; {SERVED}",
        )
    rank = down.shape[0] if down.shape else 0
    fits = {down: (rank, inputs, *kernel), up: (outputs, rank, *kernel)}
    for tensor, shape in fits.items():
        if tensor.shape != shape:
            raise _refused(
                lora,
                f"{tensor.name!r} has shape {tensor.shape}; this model's layer of shape {layer.weight}"
                f" takes {shape}",
                "use a LoRA that was trained on a model of the same family",
            )
    if not 1 <= rank <= MOST_RANK:
        raise _refused(
            lora, f"{down.name!r} has rank {rank}; 1 to {MOST_RANK} is possible", "train with a lower rank"
        )


def _check_values(lora: LoraFile, tensor: StoredTensor) -> None:
    """Reads the tensor's bytes, a block at a time."""
    import torch

    types = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    if tensor.dtype not in FLOATS:
        raise _refused(
            lora, f"{tensor.name!r} has dtype {tensor.dtype}", f"save it as one of {', '.join(FLOATS)}"
        )
    for block in read_blocks(lora.path, tensor.start, tensor.size):
        values = torch.frombuffer(bytearray(block), dtype=types[tensor.dtype])
        if not bool(values.isfinite().all()):
            raise _refused(
                lora, f"{tensor.name!r} holds NaN or an infinite value", "train it again, or use another file"
            )


def _scale(
    lora: LoraFile, layer: ModelLayer, found: Mapping[str, StoredTensor], settings: Mapping[str, Any]
) -> float:
    """Alpha over rank, or over its square root (rank-stabilised); 1 without an alpha, as in diffusers."""
    rank = found["down"].shape[0]
    if "alpha" in found:
        alpha = _one_value(lora, found["alpha"])
    else:
        alpha = _configured_alpha(layer.path, settings.get(layer.component, {}), rank)
    if not math.isfinite(alpha):
        raise _refused(lora, f"the alpha of {layer.component}.{layer.path} is {alpha}", "use another file")
    stabilised = settings.get(layer.component, {}).get("use_rslora") is True
    return alpha / math.sqrt(rank) if stabilised else alpha / rank


def _one_value(lora: LoraFile, tensor: StoredTensor) -> float:
    if math.prod(tensor.shape) != 1:
        raise _refused(
            lora, f"{tensor.name!r} has shape {tensor.shape}; an alpha is one number", "use another file"
        )
    import torch

    types = {
        "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
        "I64": torch.int64, "I32": torch.int32,
    }  # fmt: skip
    if tensor.dtype not in types:
        raise _refused(lora, f"{tensor.name!r} has dtype {tensor.dtype}", "save it as F32")
    content = b"".join(read_blocks(lora.path, tensor.start, tensor.size))
    return float(torch.frombuffer(bytearray(content), dtype=types[tensor.dtype])[0])


def _configured_alpha(path: str, settings: Mapping[str, Any], rank: int) -> float:
    """peft's lora_alpha, or that of the first pattern which fits the end of the path."""
    patterns = settings.get("alpha_pattern")
    for pattern, alpha in patterns.items() if isinstance(patterns, dict) else ():
        if _fits(str(pattern), path) and isinstance(alpha, (int, float)):
            return float(alpha)
    alpha = settings.get("lora_alpha")
    return float(alpha) if isinstance(alpha, (int, float)) and not isinstance(alpha, bool) else float(rank)


def _fits(pattern: str, path: str) -> bool:
    bare = pattern.removeprefix("^").removesuffix("$")
    return path == bare or path.endswith(f".{bare}") or bool(re.fullmatch(rf"(.*\.)?{re.escape(bare)}", path))


def _adapter_settings(lora: LoraFile, metadata: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """peft's settings by component: diffusers keeps them in the file, peft in a file beside it."""
    settings: dict[str, dict[str, Any]] = {"unet": {}, "text_encoder": {}}
    for name, value in _document(lora, metadata.get(DIFFUSERS_METADATA)).items():
        component, _, key = name.partition(".")
        settings.setdefault(component, {})[key] = value
    beside = lora.path.with_name(PEFT_CONFIG)
    if (
        DIFFUSERS_METADATA not in metadata
        and beside.is_file()
        and lora.path.name == "adapter_model.safetensors"
    ):
        with open_regular(beside) as file:
            own = _document(lora, file.read(MOST_CONFIG_BYTES).decode("utf-8", "replace"))
        settings = dict.fromkeys(settings, own)
    if any(one.get("use_dora") is True for one in settings.values()):
        raise _refused(
            lora, "it is DoRA (use_dora), which marquee does not serve", f"train a plain LoRA; {SERVED}"
        )
    return settings


def _document(lora: LoraFile, text: Any) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        document = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise _refused(lora, f"its adapter's settings are not JSON: {error}", "use another file") from error
    return document if isinstance(document, dict) else {}
