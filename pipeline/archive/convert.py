"""safetensors beside a diffusers folder's pickle weights, for ``marquee convert``."""

from __future__ import annotations

import pickle
from pathlib import Path

from pipeline.archive.selection import SAFETY_STEMS, WEIGHT_STEMS
from pipeline.errors import MarqueeError


def convert_folder(folder: Path) -> list[Path]:
    """Write X.safetensors for every component's X.bin that has none; returns the new files.

    torch's weights-only loader reads them, so no code of theirs runs. Raises MarqueeError where one
    holds anything but tensors.
    """
    made = []
    for component in WEIGHT_STEMS | SAFETY_STEMS:
        for source in sorted((folder / component).glob("*.bin")):
            # transformers calls its pickle pytorch_model.bin and its safetensors model.safetensors.
            target = source.with_name(source.name.removeprefix("pytorch_")).with_suffix(".safetensors")
            if not target.exists():
                _convert(source, target)
                made.append(target)
    if not made:
        raise MarqueeError(f"{folder} has no .bin weights that lack a safetensors twin")
    return made


def _convert(source: Path, target: Path) -> None:
    import torch
    from safetensors.torch import save_file

    try:
        stored = torch.load(source, map_location="cpu", weights_only=True)
        tensors = {name: tensor.clone().contiguous() for name, tensor in stored.items()}
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise MarqueeError(f"{source} does not hold tensors alone, so it is not read: {reason}") from error
    partial = target.with_suffix(".part")
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.chmod(0o644)
    partial.replace(target)
