"""Packed LoRAs: one safetensors file for each, which the handler reads (``handler/model/loras.py``)."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.archive.layout import CONFIG_FILE, LORAS_FOLDER, Member, read_blocks
from pipeline.archive.loras.model_layers import model_layers
from pipeline.archive.loras.option import LoraFile, check_names
from pipeline.archive.loras.reading import CheckedLora, LoraPart, read_lora
from pipeline.archive.safetensors_files import HEADER_ALIGNMENT, StoredTensor
from pipeline.archive.selection import Selection
from pipeline.errors import MarqueeError

SCALE = struct.Struct("<f")


def lora_members(loras: Sequence[LoraFile], folder: Path, selection: Selection) -> list[Member]:
    """A member for each LoRA, every one checked against the model first; raises MarqueeError."""
    check_names(loras)
    if not loras:
        return []
    layers = model_layers(folder, selection)
    return [_member(read_lora(lora, layers)) for lora in loras]


def with_loras(settings: bytes, loras: Sequence[LoraFile]) -> bytes:
    """model-config.yaml that names these LoRAs; its own default weights stay where an option says none.

    Unchanged where there is none. Raises MarqueeError where it names others.
    """
    import yaml

    document = yaml.safe_load(settings)
    own = document.get("marquee") if isinstance(document, dict) else None
    named = own.get("loras") if isinstance(own, dict) else None
    named = named if isinstance(named, dict) else {}
    if missing := sorted(str(name) for name in named if name not in {lora.name for lora in loras}):
        raise MarqueeError(
            f"{CONFIG_FILE} names the LoRA {missing[0][:100]!r}, which is not packed",
            f"add --lora {missing[0][:100]}=FILE, or take it out of marquee.loras",
        )
    if not loras:
        return settings
    document = document if isinstance(document, dict) else {}
    chosen = {
        lora.name: {"default_weight": _default_weight(lora, named.get(lora.name))}
        for lora in sorted(loras, key=lambda lora: lora.name)
    }
    document["marquee"] = {**(own or {}), "loras": chosen}
    return yaml.safe_dump(document, sort_keys=False).encode()


def _default_weight(lora: LoraFile, configured: Any) -> float:
    if lora.default_weight is not None:
        return lora.default_weight
    return float(configured.get("default_weight", 1.0)) if isinstance(configured, dict) else 1.0


def _member(lora: CheckedLora) -> Member:
    """Values as they are stored; only names change, and each alpha becomes a scale."""
    header = _header(lora.parts)

    def chunks() -> Iterator[bytes]:
        yield header
        for part in lora.parts:
            for tensor in (part.down, part.up):
                yield from read_blocks(lora.file.path, tensor.start, tensor.size)
            yield SCALE.pack(part.scale)

    size = sum(part.down.size + part.up.size + SCALE.size for part in lora.parts)
    return Member(f"{LORAS_FOLDER}/{lora.file.name}.safetensors", len(header) + size, chunks)


def _header(parts: Sequence[LoraPart]) -> bytes:
    entries: dict[str, Mapping[str, Any]] = {"__metadata__": {"format": "pt"}}
    start = 0
    for part in parts:
        stem = f"{part.layer.component}.{part.layer.path}"
        for name, kind in ((f"{stem}.down", part.down), (f"{stem}.up", part.up), (f"{stem}.scale", None)):
            entries[name] = _entry(start, kind)
            start = entries[name]["data_offsets"][1]
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _entry(start: int, tensor: StoredTensor | None) -> Mapping[str, Any]:
    if tensor is None:
        return {"dtype": "F32", "shape": [], "data_offsets": [start, start + SCALE.size]}
    assert math.prod(tensor.shape)
    return {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [start, start + tensor.size]}
