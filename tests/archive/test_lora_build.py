"""``build --lora``: LoRAs of three tools are packed in one form; all others are refused with a reason."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.testing
import yaml
from archive_command import ROOT, read_members
from safetensors.torch import load, load_file, save, save_file

from pipeline.archive.build import BuildConfig, build
from pipeline.archive.inspection import inspect_archive
from pipeline.archive.loras.option import LoraFile
from pipeline.cli import app
from pipeline.errors import MarqueeError
from pipeline.progress import Silent

MODEL = ROOT / "model_artifacts" / "shapes"
ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
TEXT = "encoder.layers.0.self_attn"
Tensors = dict[str, torch.Tensor]


def pair(down: str, up: str, rank: int = 4, width: int = 32) -> Tensors:
    chance = torch.Generator().manual_seed(rank)
    return {down: torch.randn(rank, width, generator=chance), up: torch.randn(width, rank, generator=chance)}


def peft(width: int = 32, rank: int = 4) -> Tensors:
    return pair(f"unet.{ATTENTION}.to_q.lora_A.weight", f"unet.{ATTENTION}.to_q.lora_B.weight", rank, width)


def packed(tmp_path: Path, *loras: LoraFile, **changes: Any) -> dict[str, bytes]:
    built = build(BuildConfig(str(MODEL), tmp_path / "model.mar", loras=loras, **changes), Silent())
    return read_members(built.path)


def write(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> Path:
    save_file(tensors, path, metadata)
    return path


def refusal(tmp_path: Path, *loras: LoraFile) -> str:
    """The sentence and its cure; nothing is left behind."""
    with pytest.raises(MarqueeError) as caught:
        build(BuildConfig(str(MODEL), tmp_path / "out" / "model.mar", loras=loras), Silent())
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    assert caught.value.cure
    return str(caught.value)


OLD_TEXT = "text_encoder.text_model.{t}.to_out_lora.down.weight"
KOHYA_UNET = "lora_unet_{U}_to_out_0.lora_down.weight"
NAMES = {
    "peft": ("unet.{u}.to_out.0.lora_A.weight", "text_encoder.text_model.{t}.out_proj.lora_A.weight"),
    "peft alone": (
        "base_model.model.{u}.to_out.0.lora_A.weight",
        "base_model.model.text_model.{t}.out_proj.lora_A.weight",
    ),
    "diffusers": (
        "unet.{u}.to_out.0.lora.down.weight",
        "text_encoder.{t}.out_proj.lora_linear_layer.down.weight",
    ),
    "old diffusers": ("unet.{u}.processor.to_out_lora.down.weight", OLD_TEXT),
    "older diffusers": ("{u}.processor.to_out_lora.down.weight", OLD_TEXT),
    "kohya": (KOHYA_UNET, "lora_te_text_model_{T}_out_proj.lora_down.weight"),
    "kohya 1": (KOHYA_UNET, "lora_te1_text_model_{T}_out_proj.lora_down.weight"),
}


@pytest.mark.parametrize("tool", NAMES)
def test_every_tools_names_become_one_form(tmp_path: Path, tool: str) -> None:
    """Whatever the tool, the same values lie at the same place; here without an alpha, so the scale is 1."""
    down, up = ("lora_A", "lora_B") if tool.startswith("peft") else ("down.w", "up.w")
    tensors: Tensors = {}
    for number, (name, width) in enumerate(zip(NAMES[tool], (32, 64), strict=True)):
        full = name.format(u=ATTENTION, t=TEXT, U=ATTENTION.replace(".", "_"), T=TEXT.replace(".", "_"))
        tensors |= pair(full, full.replace(down, up), 3 + number, width)
    members = packed(tmp_path, LoraFile("ink", write(tmp_path / "x.safetensors", tensors)))
    found = load(members["loras/ink.safetensors"])
    stems = (f"unet.{ATTENTION}.to_out.0", f"text_encoder.{TEXT}.out_proj")
    assert sorted(found) == sorted(f"{stem}.{kind}" for stem in stems for kind in ("down", "up", "scale"))
    for stem, (rank, width) in zip(stems, ((3, 32), (4, 64)), strict=True):
        wanted = list(pair("down", "up", rank, width).values())
        assert torch.equal(found[f"{stem}.down"], wanted[0])
        assert torch.equal(found[f"{stem}.up"], wanted[1])
        assert found[f"{stem}.scale"] == 1.0


def _with_kohya_alpha(folder: Path, tensors: Tensors) -> Path:
    stem = f"lora_unet_{ATTENTION.replace('.', '_')}_to_q"
    down, up = tensors.values()
    named = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
    return write(folder / "x.safetensors", {**named, f"{stem}.alpha": torch.tensor(2.0)})


def _with_metadata(folder: Path, tensors: Tensors, **settings: object) -> Path:
    text = json.dumps({f"unet.{key}": value for key, value in settings.items()})
    return write(folder / "x.safetensors", tensors, {"lora_adapter_metadata": text})


def _with_config_beside(folder: Path, tensors: Tensors) -> Path:
    (folder / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 2}')
    named = {name.replace("unet.", "base_model.model."): tensor for name, tensor in tensors.items()}
    return write(folder / "adapter_model.safetensors", named)


def _alone(folder: Path, tensors: Tensors) -> Path:
    return _with_metadata(folder, tensors, r=4, lora_alpha=2)


def _stabilised(folder: Path, tensors: Tensors) -> Path:
    return _with_metadata(folder, tensors, lora_alpha=2, use_rslora=True)


def _by_pattern(folder: Path, tensors: Tensors) -> Path:
    return _with_metadata(folder, tensors, lora_alpha=2, alpha_pattern={"attn1.to_q": 6})


@pytest.mark.parametrize(
    ("make", "scale"),
    [
        (_with_kohya_alpha, 0.5),
        (_alone, 0.5),
        (_stabilised, 1.0),
        (_by_pattern, 1.5),
        (_with_config_beside, 0.5),
    ],
)
def test_alpha_is_found_where_each_tool_keeps_it(
    tmp_path: Path, make: Callable[[Path, Tensors], Path], scale: float
) -> None:
    found = load(packed(tmp_path, LoraFile("ink", make(tmp_path, peft())))["loras/ink.safetensors"])
    assert float(found[f"unet.{ATTENTION}.to_q.scale"]) == scale


def test_the_archive_names_its_loras_and_is_the_same_bytes_again(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", peft())
    loras = (LoraFile("wide", path, 0.5), LoraFile("ink", path))
    first = packed(tmp_path, *loras)
    whole = (tmp_path / "model.mar").read_bytes()
    packed(tmp_path, *reversed(loras))
    assert (tmp_path / "model.mar").read_bytes() == whole
    own = yaml.safe_load(first["model-config.yaml"])["marquee"]
    assert own["loras"] == {"ink": {"default_weight": 1.0}, "wide": {"default_weight": 0.5}}
    digest = hashlib.sha256(first["loras/ink.safetensors"]).hexdigest()
    assert f"{digest}  loras/ink.safetensors\n".encode() in first["MAR-INF/SHA256SUMS"]
    found = inspect_archive(tmp_path / "model.mar", Silent())
    assert not found.problems
    assert [(lora.name, lora.sha256, lora.default_weight) for lora in found.loras] == [
        ("ink", digest, 1.0),
        ("wide", hashlib.sha256(first["loras/wide.safetensors"]).hexdigest(), 0.5),
    ]
    printed = typer.testing.CliRunner().invoke(app, ["inspect", str(tmp_path / "model.mar")])
    assert f"LoRA            wide  {found.loras[1].sha256[:16]}  default weight 0.5" in printed.output


def test_a_configuration_of_ones_own_keeps_its_default_weight(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("marquee: {loras: {ink: {default_weight: 0.3}}}\n")
    lora = LoraFile("ink", write(tmp_path / "x.safetensors", peft()))
    members = packed(tmp_path, lora, config=config)
    assert yaml.safe_load(members["model-config.yaml"])["marquee"]["loras"]["ink"] == {"default_weight": 0.3}
    with pytest.raises(MarqueeError, match="names the LoRA 'ink', which is not packed"):
        build(BuildConfig(str(MODEL), tmp_path / "b.mar", config=config), Silent())


SPOILED: dict[str, tuple[Callable[[], Tensors], tuple[str, ...]]] = {
    "DoRA of kohya": (
        lambda: {**peft(), f"lora_unet_{ATTENTION.replace('.', '_')}_to_q.dora_scale": torch.ones(32, 1)},
        ("dora_scale", "DoRA"),
    ),
    "DoRA of peft": (
        lambda: {**peft(), f"unet.{ATTENTION}.to_q.lora_magnitude_vector": torch.ones(32)},
        ("lora_magnitude_vector", "DoRA"),
    ),
    "LoHa": (lambda: {"lora_unet_mid_block_x.hada_w1_a": torch.ones(2, 2)}, ("hada_w1_a", "LyCORIS")),
    "LoCon": (
        lambda: {
            "lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight": torch.ones(4, 32, 3, 3),
            "lora_unet_down_blocks_0_resnets_0_conv1.lora_up.weight": torch.ones(32, 4, 1, 1),
        },
        ("resnets_0_conv1.lora_down.weight", "LoCon", "(4, 32, 3, 3)", "(32, 32, 3, 3)"),
    ),
    "SD 2": (
        lambda: {
            f"unet.{ATTENTION.replace('attn1', 'attn2')}.to_k.lora_A.weight": torch.ones(4, 1024),
            f"unet.{ATTENTION.replace('attn1', 'attn2')}.to_k.lora_B.weight": torch.ones(32, 4),
        },
        ("attn2.to_k.lora_A.weight", "(4, 1024)", "(4, 64)", "(32, 64)"),
    ),
    "linear for a convolution": (
        lambda: {
            "unet.down_blocks.0.attentions.0.proj_in.lora_A.weight": torch.ones(4, 32),
            "unet.down_blocks.0.attentions.0.proj_in.lora_B.weight": torch.ones(32, 4),
        },
        ("proj_in.lora_A.weight", "(4, 32)", "(4, 32, 1, 1)"),
    ),
    "SDXL": (
        lambda: pair("lora_te2_x.lora_down.weight", "lora_te2_x.lora_up.weight"),
        ("lora_te2_x.lora_down.weight", "does not have"),
    ),
    "half a pair": (lambda: dict(list(peft().items())[:1]), ("to_q.lora_A.weight", "no up tensor")),
    "ranks that differ": (
        lambda: {**peft(), f"unet.{ATTENTION}.to_q.lora_B.weight": torch.ones(32, 5)},
        ("to_q.lora_B.weight", "(32, 5)", "(32, 4)"),
    ),
    "NaN": (
        lambda: {**peft(), f"unet.{ATTENTION}.to_q.lora_B.weight": torch.full((32, 4), torch.nan)},
        ("to_q.lora_B.weight", "NaN"),
    ),
    "a huge rank": (lambda: peft(rank=2000), ("rank 2000", "512")),
    "no rank": (lambda: peft(rank=0), ("rank 0",)),
    "whole numbers": (
        lambda: {name: tensor.to(torch.int8) for name, tensor in peft().items()},
        ("lora_A.weight", "I8"),
    ),
    "an alpha that is NaN": (
        lambda: {**peft(), f"unet.{ATTENTION}.to_q.alpha": torch.tensor(torch.nan)},
        ("alpha", "nan"),
    ),
    "the same layer twice": (
        lambda: {**peft(), f"unet.{ATTENTION}.to_q.lora.down.weight": torch.ones(4, 32)},
        ("to_q.lora.down.weight", "to_q.lora_A.weight", "same layer"),
    ),
    "another thing": (lambda: {"<cat>": torch.ones(1)}, ("<cat>", "not the name of a LoRA's tensor")),
    "nothing": (dict, ("holds no LoRA",)),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_what_cannot_be_served_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    make, named = SPOILED[kind]
    said = refusal(tmp_path, LoraFile("ink", write(tmp_path / "x.safetensors", make())))
    assert all(part in said for part in ("--lora ink", "x.safetensors", *named)), said


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("x.safetensors", b"", "no safetensors header"),
        ("x.safetensors", b"\x80\x04K\x01.", "no safetensors header"),
        ("x.safetensors", save(peft())[:-1], "bytes, and its header says"),
        ("x.safetensors", struct.pack("<Q", 4) + b"[[[[", "header is damaged"),
        ("x.ckpt", b"x", "pickle"),
        ("gone.safetensors", None, "does not exist"),
        ("folder", None, "is a folder"),
    ],
)
def test_a_file_that_is_no_safetensors_is_refused(
    tmp_path: Path, name: str, content: bytes | None, named: str
) -> None:
    (tmp_path / "folder").mkdir()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert named in refusal(tmp_path, LoraFile("ink", tmp_path / name))


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("ink", "names no file"),
        ("=x.safetensors", "'' is not a name"),
        ("../ink={file}", "'../ink' is not a name"),
        ("Ink={file}", "'Ink' is not a name"),
        ("i" * 65 + "={file}", "is not a name"),
        ("ink={file}:", "'' is not a weight"),
        ("ink={file}:strong", "'strong' is not a weight"),
        ("ink={file}:nan", "finite"),
        ("ink={file}:1e9", "-10 to 10"),
    ],
)
def test_a_wrong_option_is_named(tmp_path: Path, option: str, named: str) -> None:
    file = write(tmp_path / "x.safetensors", peft())
    given = option.replace("{file}", str(file))
    result = typer.testing.CliRunner().invoke(
        app, ["build", "--lora", given, "--out", str(tmp_path / "model.mar")]
    )
    assert isinstance(result.exception, MarqueeError), result.exception
    assert named in str(result.exception)
    assert not (tmp_path / "model.mar").exists()


def test_a_name_may_be_given_once(tmp_path: Path) -> None:
    file = write(tmp_path / "x.safetensors", peft())
    assert "two LoRAs have the name ink" in refusal(tmp_path, LoraFile("ink", file), LoraFile("ink", file))


def test_the_command_packs_a_lora_with_its_weight_and_replaces_no_input(tmp_path: Path) -> None:
    file = write(tmp_path / "a:b.safetensors", peft())
    out = tmp_path / "model.mar"
    done = typer.testing.CliRunner().invoke(
        app, ["build", "--lora", f"ink={file}", "--lora", f"pen={file}:0.25", "--out", str(out)]
    )
    assert done.exit_code == 0, done.exception
    loras = yaml.safe_load(read_members(out)["model-config.yaml"])["marquee"]["loras"]
    assert {name: one["default_weight"] for name, one in loras.items()} == {"ink": 1.0, "pen": 0.25}
    with pytest.raises(MarqueeError, match="the archive is made from that file"):
        build(BuildConfig(str(MODEL), file, loras=(LoraFile("ink", file),)), Silent())
    assert load_file(file)
