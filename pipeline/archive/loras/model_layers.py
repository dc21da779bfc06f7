"""The layers of a model that a LoRA can change, read off the headers of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.archive.model_folder import TEXT_PREFIX
from pipeline.archive.safetensors_files import read_tensor_file
from pipeline.archive.selection import Selection

COMPONENTS = ("unet", "text_encoder")
EMBEDDING = "embedding."
"""CLIP's tables of tokens and positions have the shape of a linear layer and are not one."""


@dataclass(frozen=True)
class ModelLayer:
    """A linear layer or convolution: ``weight`` is (outputs, inputs), a convolution's kernel behind it."""

    component: str
    path: str
    weight: tuple[int, ...]

    @property
    def is_pointwise(self) -> bool:
        """Whether it is a linear layer, or a convolution that sees one pixel at a time."""
        return all(side == 1 for side in self.weight[2:])


Layers = Mapping[tuple[str, str], ModelLayer]
"""By component and by path with ``_`` for every dot, in which all tools' names can be written."""


def model_layers(folder: Path, selection: Selection) -> Layers:
    """The layers of UNet and text encoder in a checked model folder."""
    found = {}
    for weights in selection.weights:
        if weights.component not in COMPONENTS:
            continue
        for name in weights.files:
            for tensor in read_tensor_file(folder / name).tensors:
                path, _, kind = tensor.name.removeprefix(TEXT_PREFIX).rpartition(".")
                if kind != "weight" or len(tensor.shape) not in (2, 4) or f"{path}.".endswith(EMBEDDING):
                    continue
                found[weights.component, flat(path)] = ModelLayer(weights.component, path, tensor.shape)
    return found


def flat(path: str) -> str:
    """The path as kohya's tools write it."""
    return path.replace(".", "_")
