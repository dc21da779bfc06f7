"""Loading is strict: what is missing, extra, misfit, changed or pickled is a failed load naming it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from handler.contract.settings import Settings
from handler.model.device import choose_dtype, cores
from handler.model.digest import SUMS, DigestError, archive_digest, file_digests, weights_digest
from handler.model.load import load_model
from handler.model.weights import ModelError

Tensors = dict[str, torch.Tensor]
TEXT = "text_encoder/model.safetensors"
UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(archive_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(archive_root / "model", tmp_path / "model"))


def rewrite(path: Path, change: Callable[[Tensors], Tensors]) -> None:
    save_file(change(load_file(path)), path)


def layers(part: object) -> Any:
    """A part of a model with the layers that its interface does not show."""
    return part


def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new): tensor for name, tensor in tensors.items()}


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name}


def test_every_tensor_is_the_files(folder: Path) -> None:
    model = load_model(folder, Settings())
    for module, path in ((model.unet, UNET), (model.vae, VAE)):
        stored = load_file(folder / path)
        loaded = layers(module).state_dict()
        assert loaded.keys() == stored.keys()
        assert all(torch.equal(loaded[name], stored[name]) for name in stored)
    assert not layers(model.unet).training
    assert not any(tensor.is_meta for tensor in model.text_encoder.buffers())


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_the_text_encoder_may_be_named_as_transformers_4_or_5_does(folder: Path, prefix: str) -> None:
    plain = load_model(folder, Settings()).text_encoder.state_dict()
    bare = renamed("text_model.", "")
    rewrite(folder / TEXT, lambda tensors: {prefix + name: one for name, one in bare(tensors).items()})
    again = load_model(folder, Settings()).text_encoder.state_dict()
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_position_ids_of_old_checkpoints_are_passed_over(folder: Path) -> None:
    leftover = {"text_model.embeddings.position_ids": torch.arange(16)}
    rewrite(folder / TEXT, lambda tensors: {**tensors, **leftover})
    load_model(folder, Settings())


def test_the_vae_attention_may_have_its_old_names(folder: Path) -> None:
    plain = layers(load_model(folder, Settings()).vae).state_dict()

    def age(tensors: Tensors) -> Tensors:
        for old, new in {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}.items():
            tensors = renamed(f".{new}.", f".{old}.")(tensors)
        return tensors

    rewrite(folder / VAE, age)
    assert "decoder.mid_block.attentions.0.query.weight" in load_file(folder / VAE)
    again = layers(load_model(folder, Settings()).vae).state_dict()
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_half_precision_on_disk_becomes_the_dtype_in_use(folder: Path) -> None:
    rewrite(folder / UNET, lambda tensors: {name: tensor.half() for name, tensor in tensors.items()})
    model = load_model(folder, Settings())
    dtypes = {
        tensor.dtype
        for part in (model.unet, model.text_encoder, model.vae)
        for tensor in layers(part).parameters()
    }
    assert dtypes == {torch.float32}


def test_bfloat16_on_a_cpu_when_configured_is_channels_last(folder: Path) -> None:
    model = load_model(folder, Settings(dtype="bfloat16"))
    assert (model.dtype, model.channels_last) == (torch.bfloat16, True)
    assert layers(model.unet).conv_in.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("path", [UNET, VAE, TEXT])
def test_a_missing_tensor_is_named(folder: Path, path: str) -> None:
    name = sorted(load_file(folder / path))[3]
    rewrite(folder / path, without(name))
    with pytest.raises(ModelError, match=f"lacks 1 of .*{name.replace('text_model.', '')}"):
        load_model(folder, Settings())


def test_an_unexpected_tensor_is_named(folder: Path) -> None:
    rewrite(folder / UNET, lambda tensors: {**tensors, "lora.weight": torch.zeros(1)})
    with pytest.raises(ModelError, match=r"unet/.*safetensors holds lora\.weight"):
        load_model(folder, Settings())


def test_a_misshaped_tensor_is_named_with_both_shapes(folder: Path) -> None:
    rewrite(folder / UNET, lambda tensors: {**tensors, "conv_in.bias": torch.zeros(3)})
    with pytest.raises(ModelError, match=r"conv_in\.bias has shape \(3,\), the model's is \(8,\)"):
        load_model(folder, Settings())


def test_a_truncated_file_is_named(folder: Path) -> None:
    (folder / UNET).write_bytes((folder / UNET).read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"unet/.*safetensors cannot be read"):
        load_model(folder, Settings())


def test_pickles_are_refused(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"diffusion_pytorch_model\.bin is a pickle"):
        load_model(folder, Settings())


@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json", VAE])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name.partition("/")[0]):
        load_model(folder, Settings())


def test_another_kind_of_pipeline_is_refused(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    index["text_encoder"] = ["transformers", "T5EncoderModel"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="T5EncoderModel"):
        load_model(folder, Settings())


def write_sums(root: Path) -> None:
    (root / SUMS).parent.mkdir(exist_ok=True)
    lines = [f"{digest}  {name}\n" for name, digest in file_digests(root).items()]
    (root / SUMS).write_text("".join(lines))


def test_the_weights_digest_covers_the_model_folder(folder: Path) -> None:
    write_sums(folder.parent)
    first = load_model(folder, Settings()).weights_digest
    assert first == weights_digest(file_digests(folder))
    assert archive_digest(folder.parent) is not None
    rewrite(folder / UNET, lambda tensors: {**tensors, "conv_in.bias": tensors["conv_in.bias"] + 1})
    (folder.parent / SUMS).unlink()
    assert load_model(folder, Settings()).weights_digest != first


@pytest.mark.parametrize("change", ["flip", "add", "remove"])
def test_a_file_that_the_archive_was_not_built_with_is_named(folder: Path, change: str) -> None:
    write_sums(folder.parent)
    path = folder / "tokenizer" / "tokenizer_config.json"
    if change == "flip":
        path.write_bytes(path.read_bytes() + b" ")
    elif change == "add":
        path = path.with_name("new.json")
        path.write_text("{}")
    else:
        path.unlink()
    with pytest.raises(DigestError, match=path.name):
        load_model(folder, Settings())


def test_a_cpu_computes_in_float32_unless_told_otherwise() -> None:
    cpu = torch.device("cpu")
    assert choose_dtype("auto", cpu) is torch.float32
    assert choose_dtype("bfloat16", cpu) is torch.bfloat16


@pytest.mark.parametrize(
    ("quota", "allowed"), [("max 100000", None), ("100000 100000", 1), ("5000 10000", 1)]
)
def test_a_containers_quota_bounds_the_cores(tmp_path: Path, quota: str, allowed: int | None) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    unbounded = cores(tmp_path / "none")
    assert cores(tmp_path / "cpu.max") == (allowed or unbounded)
