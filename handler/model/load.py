"""Loads a Stable Diffusion folder strictly: local safetensors, every tensor accounted for (imports torch).

Weights are read tensor by tensor into modules made without storage, so that memory peaks at the model's own
size, any dtype on disk fits any dtype in use, and transformers 4 and 5 read the same names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from safetensors import SafetensorError, safe_open

from handler.contract.settings import Settings
from handler.model.device import choose_channels_last, choose_device, choose_dtype, choose_dtype_by_probe
from handler.model.digest import check_digests, file_digests, weights_digest
from handler.model.model import Model, inpainting_channels

CLASSES = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "tokenizer": "CLIPTokenizer",
}
PICKLE_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")

# Buffers that checkpoints of transformers before 4.31 carry and the models compute by themselves.
LEFTOVERS = {"text_encoder": ("embeddings.position_ids",)}
# diffusers before 0.18 named the VAE's attention so, and SD 1.5's own files still do.
OLD_NAMES = {
    "vae": {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."},
}
# transformers 4 keeps CLIPTextModel's tensors below this prefix, transformers 5 does not; files do either.
TEXT_PREFIX = "text_model."


class ModelError(ValueError):
    """The folder does not hold the complete model that it says it holds; names the file and the tensor."""


def load_model(folder: Path, settings: Settings, gpu_id: int | None = None) -> Model:
    """Load a diffusers folder; raises ModelError, DigestError or OSError, whose text names the fault."""
    index = _read_json(folder / "model_index.json")
    _check_index(index)
    _refuse_pickles(folder)
    digests = file_digests(folder)
    check_digests(folder.parent, folder.name, digests)
    device = choose_device(settings.device, gpu_id)
    parts = {
        "unet": _empty(diffusers.UNet2DConditionModel, folder / "unet"),
        "vae": _empty(diffusers.AutoencoderKL, folder / "vae"),
        "text_encoder": _empty_text_encoder(folder / "text_encoder"),
    }
    _check_channels(folder, parts["unet"].config.in_channels, parts["vae"].config.latent_channels)
    probe = choose_dtype_by_probe(settings, device, max(parts["unet"].config.block_out_channels))
    dtype = probe.dtype if probe else choose_dtype(settings.dtype, device)
    channels_last = choose_channels_last(settings.channels_last, dtype)
    for name, module in parts.items():
        _fill(module, name, folder / name, device, dtype)
        module.requires_grad_(False).eval()
        if channels_last and name != "text_encoder":
            module.to(memory_format=torch.channels_last)
    return Model(
        tokenizer=_load_tokenizer(folder / "tokenizer", parts["text_encoder"].config.vocab_size),
        scheduler=_load_scheduler(index, folder),
        device=device,
        dtype=dtype,
        channels_last=channels_last,
        weights_digest=weights_digest(digests),
        dtype_probe=probe,
        **parts,
    )


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise ModelError(f"{path} is missing; a diffusers folder has it")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}") from error


def _check_index(index: Mapping[str, Any]) -> None:
    for name, wanted in CLASSES.items():
        given = (index.get(name) or [None, None])[1]
        # transformers 5 may write its fast class's name; both names mean the same tokenizer files.
        if given not in (wanted, f"{wanted}Fast"):
            raise ModelError(f"model_index.json names {given} as {name}; this handler serves {wanted}")


def _check_channels(folder: Path, unet: int, latent: int) -> None:
    if unet not in (latent, inpainting_channels(latent)):
        raise ModelError(
            f"{folder}/unet/config.json says in_channels {unet}; with the autoencoder's {latent} latent"
            f" channels it must be {latent}, or {inpainting_channels(latent)} for inpainting"
        )


def _refuse_pickles(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in PICKLE_SUFFIXES:
            raise ModelError(
                f"{path} is a pickle, which can run any code when loaded; only safetensors are read"
            )


def _load_scheduler(index: Mapping[str, Any], folder: Path) -> Any:
    class_name = str((index.get("scheduler") or [None, "PNDMScheduler"])[1])
    kind = getattr(diffusers, class_name, None)
    if kind is None or not class_name.endswith("Scheduler"):
        raise ModelError(f"model_index.json names {class_name} as scheduler; diffusers has no such scheduler")
    return kind.from_pretrained(folder / "scheduler", local_files_only=True)


def _load_tokenizer(folder: Path, vocabulary: int) -> transformers.CLIPTokenizer:
    """transformers 5 makes an empty tokenizer of a folder without files, so the tokenizer is checked, too."""
    whole = (folder / "tokenizer.json").is_file()
    if not whole and not ((folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()):
        raise ModelError(f"{folder} has neither tokenizer.json nor vocab.json and merges.txt")
    tokenizer: transformers.CLIPTokenizer = transformers.CLIPTokenizer.from_pretrained(
        folder, local_files_only=True
    )
    if not 0 < len(tokenizer) <= vocabulary:
        raise ModelError(f"{folder} has {len(tokenizer)} tokens; the text encoder knows {vocabulary}")
    return tokenizer


def _empty(kind: Any, folder: Path) -> Any:
    """A module of a diffusers class as configured in ``folder``, its parameters without storage."""
    config = _read_json(folder / "config.json")
    with _no_storage():
        return kind.from_config(config)


def _empty_text_encoder(folder: Path) -> transformers.CLIPTextModel:
    config = transformers.CLIPTextConfig.from_dict(_read_json(folder / "config.json"))
    with _no_storage():
        return transformers.CLIPTextModel(config)


def _no_storage() -> AbstractContextManager[None]:
    """Modules made inside have parameters without storage; buffers, which no file holds, are real."""
    context: AbstractContextManager[None] = init_empty_weights(include_buffers=False)
    return context


def _fill(module: Any, part: str, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
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
    bare = name[len(TEXT_PREFIX) :] if name.startswith(TEXT_PREFIX) else name
    if bare in LEFTOVERS.get(part, ()):
        return None
    if part == "text_encoder":
        return bare if bare in expected else TEXT_PREFIX + bare
    return name


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors of one precision: the plain ones, shards included, or else the fp16 variant's."""
    files = sorted(folder.glob("*.safetensors"))
    plain = [path for path in files if ".fp16" not in path.name]
    if not files:
        raise ModelError(f"{folder} has no .safetensors file")
    return plain or files


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
