"""safetensors beside a diffusers folder's pickle weights, for ``marquee convert``."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

from pipeline.archive.regular import is_folder, special_kind
from pipeline.archive.selection import SAFETY_STEMS, WEIGHT_STEMS
from pipeline.errors import MarqueeError


def convert_folder(folder: Path) -> list[Path]:
    """Write X.safetensors for every component's X.bin, and shard list, that has none; returns the new files.

    torch's weights-only loader reads them, so no code of theirs runs. Raises MarqueeError where one
    holds anything but tensors.
    """
    if not is_folder(folder):
        raise MarqueeError(f"{folder} is not a folder", "name a diffusers folder with .bin weights")
    made = []
    for component in WEIGHT_STEMS | SAFETY_STEMS:
        for source in sorted((folder / component).glob("*.bin")):
            target = source.with_name(_twin(source.name))
            if not target.exists():
                _convert(source, target)
                made.append(target)
        for source in sorted((folder / component).glob("*.bin.index*.json")):
            target = source.with_name(_twin(source.name))
            if not target.exists():
                target.write_text(_shard_list(source), encoding="utf-8")
                made.append(target)
    if not made:
        raise MarqueeError(f"{folder} has no .bin weights that lack a safetensors twin")
    return made


def _twin(name: str) -> str:
    """transformers calls its pickle pytorch_model.bin and its safetensors model.safetensors."""
    return re.sub(r"\.bin(?=\.index|$)", ".safetensors", name.removeprefix("pytorch_"))


def _shard_list(source: Path) -> str:
    """The list of a model's shards with the names that their twins have."""
    try:
        listed = json.loads(source.read_text(encoding="utf-8"))
        weight_map = {tensor: _twin(shard) for tensor, shard in listed["weight_map"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MarqueeError(f"{source} is not a list of shards: {error}") from error
    return json.dumps({**listed, "weight_map": weight_map}, indent=2) + "\n"


def _convert(source: Path, target: Path) -> None:
    import torch
    from safetensors.torch import save_file

    if kind := special_kind(source):
        raise MarqueeError(f"{source} is {kind}, not a file of weights", "name a folder with .bin files")
    try:
        stored = torch.load(source, map_location="cpu", weights_only=True)
        tensors = {name: tensor.clone().contiguous() for name, tensor in stored.items()}
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise MarqueeError(f"{source} holds more than tensors, so it is not read: {reason}") from error
    partial = target.with_suffix(".part")
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.chmod(0o644)
    partial.replace(target)
