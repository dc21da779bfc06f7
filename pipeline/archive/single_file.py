"""A single-file checkpoint as a diffusers folder, converted by diffusers.

A checkpoint holds only tensors. Its configurations and its tokenizer come from a diffusers folder of the
same architecture, in which no weights are needed. Nothing is fetched for it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.archive.families import SERVED, family_of_tensors, refusal
from pipeline.archive.layout import CONFIG_FILE, PICKLE_SUFFIXES
from pipeline.archive.model_folder import load_json
from pipeline.archive.regular import special_kind
from pipeline.archive.safetensors_files import NotSafetensors, TensorFile, read_tensor_file
from pipeline.archive.selection import INDEX, SCHEDULER_CONFIG, TOKENIZER_FILES
from pipeline.errors import MarqueeError
from pipeline.progress import Progress

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
TEXT_PREFIX = "cond_stage_model.transformer."
NEEDED = (INDEX, "unet/config.json", "vae/config.json", "text_encoder/config.json", SCHEDULER_CONFIG)
# The token embedding's size tells two architectures of Stable Diffusion 1.x apart.
TOKENS = "embeddings.token_embedding.weight"
PLAIN_REPOSITORY = "stable-diffusion-v1-5/stable-diffusion-v1-5"


@contextmanager
def converted(
    checkpoint: Path, base: Path | None, embedded: Path, beside: Path, progress: Progress
) -> Iterator[Path]:
    """The checkpoint as a diffusers folder, hidden in ``beside``, which lasts as long as the block.

    ``base`` is the folder of configurations; None takes one that fits: the folder of the checkpoint's name
    beside it, the folder it lies in, or ``embedded``. Raises MarqueeError for another family and for a
    checkpoint that does not fit the configurations.
    """
    tensors = read_checkpoint(checkpoint)
    source = base or find_base(checkpoint, tensors, embedded)
    check_base(source)
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=beside) as name:
        folder = Path(name)
        progress.note(f"converting {checkpoint} with the configurations of {source}")
        for config in (*NEEDED, *TOKENIZER_FILES, CONFIG_FILE):
            if (source / config).is_file():
                (folder / config).parent.mkdir(exist_ok=True)
                shutil.copyfile(source / config, folder / config)
        _convert(checkpoint, tensors, source, folder)
        yield folder


def read_checkpoint(path: Path) -> TensorFile:
    """The checkpoint's tensors by its header; raises MarqueeError where it is not Stable Diffusion 1.x."""
    if kind := special_kind(path):
        raise MarqueeError(
            f"{path} is {kind}, not a checkpoint", "name a .safetensors file or a diffusers folder"
        )
    if not path.exists():
        raise MarqueeError(f"{path} does not exist", "name a .safetensors file or a diffusers folder")
    if path.suffix in PICKLE_SUFFIXES:
        raise MarqueeError(
            f"{path} is a pickle by its name, which can run any code when loaded; only .safetensors are read",
            "take the .safetensors of the same checkpoint",
        )
    if path.suffix != ".safetensors":
        raise MarqueeError(
            f"{path} is neither a folder nor a .safetensors file", "name one of them, or a hub id"
        )
    try:
        file = read_tensor_file(path)
    except NotSafetensors as error:
        raise MarqueeError(f"{path} is not a valid safetensors file: {error}") from error
    except OSError as error:
        raise MarqueeError(f"{path} cannot be read: {error.strerror}") from error
    shapes = {tensor.name: tensor.shape for tensor in file.tensors}
    if family := family_of_tensors(shapes):
        raise MarqueeError(f"{path} cannot be packed: {refusal(family)}")
    for prefix, part in ((UNET_PREFIX, "UNet"), (VAE_PREFIX, "VAE"), (TEXT_PREFIX, "text encoder")):
        if not any(name.startswith(prefix) for name in shapes):
            raise MarqueeError(
                f"{path} is not a single-file checkpoint of {SERVED}: it holds no {part} ({prefix}...)"
            )
    return file


def find_base(checkpoint: Path, tensors: TensorFile, embedded: Path) -> Path:
    """A folder of configurations for this checkpoint on this machine; raises MarqueeError where none fits."""
    shape = next((tensor.shape for tensor in tensors.tensors if tensor.name.endswith(TOKENS)), ())
    for folder in (checkpoint.with_suffix(""), checkpoint.resolve().parent, embedded):
        if (folder / INDEX).is_file() and _tokens_of(folder) == shape:
            return folder
    into = checkpoint.with_suffix("")
    raise MarqueeError(
        f"{checkpoint} holds only tensors; a diffusers folder with its configurations is needed",
        f'hf download {PLAIN_REPOSITORY} --include "*.json" "*.txt" --local-dir {into}   '
        f"and then the same command, or name such a folder: --base DIR",
    )


def check_base(folder: Path) -> None:
    """Raises MarqueeError where a folder lacks what a conversion needs."""
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in ("tokenizer/tokenizer.json", "tokenizer/vocab.json")):
        missing.append("tokenizer/")
    if missing:
        raise MarqueeError(
            f"{folder} lacks configurations that a checkpoint needs: {', '.join(missing)}",
            "name a diffusers folder of the same architecture: --base DIR",
        )


def _tokens_of(folder: Path) -> tuple[Any, ...]:
    try:
        config = load_json(folder / "text_encoder/config.json")
    except ValueError:
        return (None,)
    return (config.get("vocab_size"), config.get("hidden_size")) if isinstance(config, dict) else (None,)


def _convert(checkpoint: Path, tensors: TensorFile, base: Path, folder: Path) -> None:
    """Write the three parts' weights; diffusers renames the tensors and checks their shapes."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    stored = {tensor.name: tensor.dtype for tensor in tensors.tensors}
    halves = {"F16": torch.float16, "BF16": torch.bfloat16}
    try:
        for kind, part, prefix in (
            (UNet2DConditionModel, "unet", UNET_PREFIX),
            (AutoencoderKL, "vae", VAE_PREFIX),
        ):
            dtypes = {dtype for name, dtype in stored.items() if name.startswith(prefix)}
            dtype = halves.get(dtypes.pop()) if len(dtypes) == 1 else None
            model = kind.from_single_file(
                str(checkpoint), config=str(base), subfolder=part, local_files_only=True, torch_dtype=dtype
            )
            model.save_pretrained(folder / part)
        with safe_open(checkpoint, "pt") as file:
            text = {
                name.removeprefix(TEXT_PREFIX): file.get_tensor(name)
                for name in stored
                if name.startswith(TEXT_PREFIX)
            }
        save_file(text, folder / "text_encoder/model.safetensors", metadata={"format": "pt"})
    except (ValueError, RuntimeError, OSError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise MarqueeError(
            f"{checkpoint} does not fit the configurations in {base}: {reason}",
            "name a diffusers folder of the same architecture: --base DIR",
        ) from error
