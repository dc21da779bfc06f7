"""Reads safetensors into modules, tensor by tensor: every one accounted for, in any dtype (imports torch).

Modules are made without storage, so that memory peaks at the model's own size, and transformers 4 and 5 read
the same names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from safetensors import SafetensorError, safe_open

# Buffers that checkpoints of transformers before 4.31 carry and the models compute by themselves.
LEFTOVERS = dict.fromkeys(("text_encoder", "safety_checker"), "embeddings.position_ids")
# diffusers before 0.18 named the VAE's attention so, and SD 1.5's own files still do.
OLD_NAMES = {
    "vae": {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."},
}
# CLIP's tensors: transformers 4 has them below the second prefix, 5 below the first; files do either.
PREFIXES = {
    "text_encoder": ("", "text_model."),
    "safety_checker": ("vision_model.", "vision_model.vision_model."),
}


class ModelError(ValueError):
    """The folder does not hold the complete model that it says it holds; names the file and the tensor."""


def read_json(path: Path) -> Any:
    """A model's JSON file; raises ModelError where it is missing or is none."""
    if not path.is_file():
        raise ModelError(f"{path} is missing; a diffusers folder has it")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}") from error


def no_storage() -> AbstractContextManager[None]:
    """Modules made inside have parameters without storage; buffers, which no file holds, are real."""
    context: AbstractContextManager[None] = init_empty_weights(include_buffers=False)
    return context


def fill(module: Any, part: str, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
    """Give every parameter its tensor from the folder's safetensors; anything that does not fit raises."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found: dict[str, torch.Tensor] = {}
    for path in _weight_files(folder):
        _read_tensors(path, part, expected, found, device, dtype)
    missing = sorted(expected.keys() - found.keys())
    if missing:
        raise ModelError(f"{folder} lacks {len(missing)} of {len(expected)} tensors: {_some(missing)}")
    module.load_state_dict(found, strict=True, assign=True)
    module.to(device)  # buffers that no file holds


def _read_tensors(
    path: Path,
    part: str,
    expected: Mapping[str, tuple[int, ...]],
    found: dict[str, torch.Tensor],
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            for stored in file.keys():  # noqa: SIM118  (safe_open is no mapping)
                name = _current_name(part, stored, expected)
                if name is None:
                    continue
                if name not in expected or name in found:
                    raise ModelError(f"{path} holds {stored}, which the model does not have")
                shape = tuple(file.get_slice(stored).get_shape())
                if shape != expected[name]:
                    raise ModelError(f"{path}: {stored} has shape {shape}, the model's is {expected[name]}")
                found[name] = file.get_tensor(stored).to(device=device, dtype=dtype)
    except SafetensorError as error:
        raise ModelError(f"{path} cannot be read: {error}") from error


def _current_name(part: str, stored: str, expected: Mapping[str, object]) -> str | None:
    """What the installed libraries call a stored tensor; None for the leftovers that no model needs."""
    name = stored
    for old, new in OLD_NAMES.get(part, {}).items():
        name = name.replace(old, new)
    if name in expected:
        return name
    short, long = PREFIXES.get(part, ("", ""))
    prefix = long if name.startswith(long) else short
    bare = name[len(prefix) :] if name.startswith(prefix) else name
    if bare == LEFTOVERS.get(part):
        return None
    return next((one for one in (short + bare, long + bare) if one in expected), name)


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors of one precision: the plain ones, shards included, or else the fp16 variant's."""
    files = sorted(folder.glob("*.safetensors"))
    plain = [path for path in files if ".fp16" not in path.name]
    if not files:
        raise ModelError(f"{folder} has no .safetensors file")
    return plain or files


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
