"""Lists a model folder's weight files that are not packed: without its LoRA it draws other pictures."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from pipeline.archive.layout import PICKLE_SUFFIXES
from pipeline.archive.safetensors_files import NotSafetensors, read_tensor_file
from pipeline.archive.selection import SAFETY_STEMS, WEIGHT_STEMS
from pipeline.errors import MarqueeError

WEIGHT_SUFFIXES = (".safetensors", ".gguf", ".onnx", ".h5", ".msgpack", *PICKLE_SUFFIXES)
LORA_KEY = re.compile(r".*(\.lora|lora_|\.hada_|\.lokr_)")
EMBEDDING_KEYS = ("emb_params", "string_to_param")
PACK = "to serve it, add --lora NAME=FILE"


def ignored_weights(folder: Path, names: Collection[str], packed: Collection[str]) -> Iterator[str]:
    """One sentence for each weight file of ``names`` (relative to ``folder``) that is not in ``packed``."""
    for name in sorted(set(names) - set(packed)):
        if not name.lower().endswith(WEIGHT_SUFFIXES):
            continue
        component, _, file = name.rpartition("/")
        if component in SAFETY_STEMS:
            yield f"{name} is not packed: --safety-checker packs it"
        elif component in WEIGHT_STEMS and file.startswith(("diffusion_pytorch_model", "model", "pytorch_")):
            yield f"{name} is not packed: another file of {component}/ is"
        else:
            yield f"{name} is not packed and changes no picture: {_kind(folder / name)}"


def _kind(path: Path) -> str:
    if path.suffix == ".safetensors":
        try:
            keys = [tensor.name for tensor in read_tensor_file(path).tensors]
        except (NotSafetensors, OSError, MarqueeError):
            return "it is not a valid safetensors file"
        if any(LORA_KEY.match(key) for key in keys):
            return f"it is a LoRA; {PACK}"
        if any(key in EMBEDDING_KEYS or key.startswith("<") for key in keys):
            return "it is an embedding (textual inversion), which marquee does not serve"
    if "lora" in path.name.lower():
        return f"it is a LoRA by its name; save it as safetensors, and {PACK}"
    return f"only {', '.join(sorted(WEIGHT_STEMS))} ship ({PurePosixPath(path.name).suffix} in another place)"
