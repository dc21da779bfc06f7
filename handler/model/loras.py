"""The archive's LoRAs: low-rank additions to layers of the UNet and the text encoder, asked for by name.

``marquee build --lora`` writes one file for each, loras/NAME.safetensors. For a layer of the UNet it holds
``unet.PATH.down`` (rank, inputs), ``unet.PATH.up`` (outputs, rank) and ``unet.PATH.scale``, which is LoRA's
alpha over rank; a 1x1 convolution's have two more dimensions. Those of the text encoder begin with its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from handler.contract.settings import Settings
from handler.model.digest import check_digests, file_digests
from handler.model.weights import ModelError

FOLDER = "loras"
COMPONENTS = ("unet", "text_encoder")
KINDS = ("down", "up", "scale")
TEXT_PREFIX = "text_model."


@dataclass(frozen=True)
class LoraLayer:
    """What one LoRA adds to one layer's output: ``up(down(input))``; ``up`` includes alpha over rank."""

    down: torch.Tensor
    up: torch.Tensor

    @property
    def nbytes(self) -> int:
        return int(self.down.nbytes + self.up.nbytes)


@dataclass(frozen=True)
class Lora:
    """One LoRA on the model's device. ``digest`` is the SHA-256 of its file, which a receipt names.

    ``unet`` and ``text_encoder`` hold its layers by the path that the installed libraries give them.
    """

    digest: str
    default_weight: float
    unet: Mapping[str, LoraLayer]
    text_encoder: Mapping[str, LoraLayer]

    @property
    def nbytes(self) -> int:
        """Bytes of the device's memory."""
        return sum(layer.nbytes for part in (self.unet, self.text_encoder) for layer in part.values())


def load_loras(root: Path, settings: Settings, parts: Mapping[str, Any]) -> dict[str, Lora]:
    """The LoRAs of the archive unpacked at ``root``; ``parts`` are the loaded unet and text_encoder.

    Raises ModelError where a file or a layer is not what the settings and the model ask for, DigestError
    where a file is not the one that was built.
    """
    folder = root / FOLDER
    digests = file_digests(folder) if folder.is_dir() else {}
    check_digests(root, FOLDER, digests)
    wanted = {f"{name}.safetensors" for name in settings.loras}
    if differing := sorted(wanted ^ digests.keys()):
        where = "the archive lacks it" if differing[0] in wanted else "model-config.yaml does not name it"
        raise ModelError(f"{FOLDER}/{differing[0]}: {where}; marquee build --lora writes both")
    return {
        name: Lora(
            digests[f"{name}.safetensors"],
            chosen.default_weight,
            **_load(folder / f"{name}.safetensors", parts),
        )
        for name, chosen in settings.loras.items()
    }


def _load(path: Path, parts: Mapping[str, Any]) -> dict[str, dict[str, LoraLayer]]:
    layers: dict[str, dict[str, LoraLayer]] = {component: {} for component in COMPONENTS}
    try:
        with safe_open(path, framework="pt") as file:
            for stem in _stems(path, list(file.keys())):
                component, _, stored = stem.partition(".")
                part = parts[component]
                place = find_layer(part, stored)
                tensors = [file.get_tensor(f"{stem}.{kind}") for kind in KINDS]
                _check(f"{FOLDER}/{path.name}: {stem}", tensors, part, place)
                layers[component][place] = _on_device(f"{path.name}: {stem}", tensors, part)
    except SafetensorError as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    return layers


def _stems(path: Path, names: list[str]) -> Iterator[str]:
    found: dict[str, set[str]] = {}
    for name in names:
        stem, _, kind = name.rpartition(".")
        found.setdefault(stem, set()).add(kind)
    for stem, kinds in sorted(found.items()):
        if kinds != set(KINDS) or stem.partition(".")[0] not in COMPONENTS:
            raise ModelError(f"{path} holds {stem}.{min(kinds)}, which is no part of a LoRA's layer")
        yield stem


def find_layer(part: Any, stored: str) -> str:
    """The installed library's path of a layer; transformers 4 puts ``text_model.`` before it, 5 does not.

    Empty where the part has no such layer.
    """
    for path in (stored, f"{TEXT_PREFIX}{stored}"):
        try:
            part.get_submodule(path)
        except AttributeError:
            continue
        return path
    return ""


def _check(where: str, tensors: list[torch.Tensor], part: Any, place: str) -> None:
    down, up, scale = tensors
    if not place:
        raise ModelError(f"{where} names a layer that the model does not have")
    outputs, inputs, *kernel = part.get_submodule(place).weight.shape
    rank = down.shape[0] if down.dim() else 0
    if any(side != 1 for side in kernel) or down.shape != (rank, inputs, *kernel):
        raise ModelError(f"{where}.down has shape {tuple(down.shape)}; the layer takes (rank, {inputs})")
    if up.shape != (outputs, rank, *kernel) or scale.numel() != 1:
        raise ModelError(f"{where}.up has shape {tuple(up.shape)}; the layer needs ({outputs}, {rank})")


def _on_device(where: str, tensors: list[torch.Tensor], part: Any) -> LoraLayer:
    weight = next(part.parameters())
    down, up, scale = (tensor.to(weight.device) for tensor in tensors)
    layer = LoraLayer(down.to(weight.dtype), (up.float() * scale.float()).to(weight.dtype))
    for kept in (layer.down, layer.up):
        if not bool(kept.isfinite().all()):
            raise ModelError(f"{where} is too large for {str(weight.dtype).rpartition('.')[2]}")
    return layer
