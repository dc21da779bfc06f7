"""A single-file checkpoint becomes the archive of the diffusers folder it was written from, offline."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from archive_command import edit_json, marquee
from original_keys import write_checkpoint
from safetensors.torch import load_file, save_file

from pipeline.archive.build import BuildConfig, build, repository_root
from pipeline.errors import MarqueeError
from pipeline.progress import Silent

EMBEDDED = repository_root() / "model_artifacts" / "shapes"


def unpacked_model(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    return folder / "model"


def drawn(folder: Path) -> np.ndarray:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 4, "guidance_scale": 2.0, "width": 64, "height": 64}
    generator = torch.Generator("cpu").manual_seed(1)
    return np.asarray(
        pipeline("a red circle on a blue background", generator=generator, **settings).images[0]
    )


def refusal(checkpoint: Path, tmp_path: Path, base: Path | None = None) -> MarqueeError:
    out = tmp_path / "out" / "model.mar"
    with pytest.raises(MarqueeError) as caught:
        build(BuildConfig(str(checkpoint), out, base=base), Silent())
    assert not out.parent.exists() or not list(out.parent.iterdir())
    return caught.value


def test_the_embedded_model_as_one_file_draws_the_same_picture(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(EMBEDDED, tmp_path / "shapes-v1.safetensors")
    done = marquee("build", "--model", checkpoint, "--out", tmp_path / "out/model.mar", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.mar"]
    model = unpacked_model(tmp_path / "out/model.mar", tmp_path / "unpacked")
    for part in ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"):
        packed, original = (
            load_file(model / f"{part}.safetensors"),
            load_file(EMBEDDED / f"{part}.safetensors"),
        )
        assert packed.keys() == original.keys()
        assert all(torch.equal(packed[name], original[name]) for name in original)
    picture = drawn(model)
    assert np.array_equal(picture, drawn(EMBEDDED))
    assert picture.std() > 10


@pytest.mark.parametrize("where", ["beside", "around", "named"])
def test_configurations_come_from_a_folder_that_fits(
    saved_pipeline: Path, tmp_path: Path, where: str
) -> None:
    place = tmp_path / "models"
    configs = {"beside": place / "tiny", "around": place, "named": tmp_path / "elsewhere"}[where]
    for path in saved_pipeline.rglob("*.json"):
        target = configs / path.relative_to(saved_pipeline)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    place.mkdir(exist_ok=True)
    checkpoint = write_checkpoint(saved_pipeline, place / "tiny.safetensors", torch.float16)
    base = configs if where == "named" else None
    built = build(BuildConfig(str(checkpoint), tmp_path / "model.mar", base=base), Silent())
    assert built.defaults == {"num_inference_steps": 30, "guidance_scale": 7.5, "width": 64, "height": 64}
    model = unpacked_model(built.path, tmp_path / "unpacked")
    unet = load_file(model / "unet/diffusion_pytorch_model.safetensors")
    original = load_file(saved_pipeline / "unet/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(unet[name], original[name].half()) for name in original)


def test_without_configurations_the_cure_fetches_them(saved_pipeline: Path, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(saved_pipeline, tmp_path / "tiny.safetensors")
    error = refusal(checkpoint, tmp_path)
    assert "a diffusers folder with its configurations is needed" in str(error)
    assert f"--local-dir {tmp_path / 'tiny'}" in str(error.cure)
    assert "--base DIR" in str(error.cure)


def test_configurations_that_do_not_fit_are_refused(saved_pipeline: Path, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(saved_pipeline, tmp_path / "tiny.safetensors")
    error = refusal(checkpoint, tmp_path, EMBEDDED)
    assert f"does not fit the configurations in {EMBEDDED}" in str(error)
    error = refusal(checkpoint, tmp_path, tmp_path)
    assert "model_index.json, unet/config.json" in str(error)


@pytest.mark.parametrize(
    ("keys", "family"),
    [
        (["conditioner.embedders.0.transformer.text_model.x"], "Stable Diffusion XL"),
        (["model.diffusion_model.joint_blocks.0.x"], "Stable Diffusion 3"),
        (["model.diffusion_model.double_blocks.0.x"], "FLUX.1"),
        (["double_blocks.0.img_attn.qkv.weight"], "FLUX.1"),
        (["cond_stage_model.model.transformer.x"], "Stable Diffusion 2.x"),
        (["control_model.input_blocks.0.0.weight"], "a ControlNet"),
        (["lora_unet_down_blocks_0.lora_up.weight"], "a LoRA"),
        (["unet.down_blocks.0.to_k.lora_A.weight"], "a LoRA"),
        (["first_stage_model.x"], "holds no UNet"),
        (["model.diffusion_model.x", "first_stage_model.x"], "holds no text encoder"),
    ],
)
def test_another_familys_checkpoint_is_refused_by_name(tmp_path: Path, keys: list[str], family: str) -> None:
    checkpoint = tmp_path / "some.safetensors"
    save_file({key: torch.zeros(1) for key in keys}, checkpoint)
    error = str(refusal(checkpoint, tmp_path))
    assert family in error
    assert "Stable Diffusion 1.x" in error


def test_shapes_tell_families_that_share_their_keys(tmp_path: Path) -> None:
    context = "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"
    checkpoint = tmp_path / "some.safetensors"
    save_file({context: torch.zeros(320, 1024)}, checkpoint)
    assert "this is Stable Diffusion 2.x" in str(refusal(checkpoint, tmp_path))
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(32, 9, 3, 3)}, checkpoint)
    assert "this is Stable Diffusion for inpainting" in str(refusal(checkpoint, tmp_path))


@pytest.mark.parametrize(
    ("class_name", "family"),
    [
        ("StableDiffusionXLPipeline", "Stable Diffusion XL"),
        ("StableDiffusion3Pipeline", "Stable Diffusion 3"),
        ("FluxPipeline", "FLUX.1"),
        ("Flux2Pipeline", "FLUX.2"),
        ("PixArtSigmaPipeline", "PixArt"),
    ],
)
def test_another_familys_folder_is_refused_by_name(
    model_folder: Path, tmp_path: Path, class_name: str, family: str
) -> None:
    edit_json(model_folder / "model_index.json", _class_name=class_name)
    assert f"this is {family}; marquee serves Stable Diffusion 1.x" in str(refusal(model_folder, tmp_path))


@pytest.mark.parametrize(
    ("change", "family"),
    [({"cross_attention_dim": 1024}, "Stable Diffusion 2.x"), ({"in_channels": 9}, "for inpainting")],
)
def test_families_that_share_a_class_are_told_by_the_unet(
    model_folder: Path, tmp_path: Path, change: dict[str, int], family: str
) -> None:
    edit_json(model_folder / "unet/config.json", **change)
    assert family in str(refusal(model_folder, tmp_path))


def test_a_folder_for_inpainting_is_packed(model_folder: Path, tmp_path: Path) -> None:
    edit_json(model_folder / "model_index.json", _class_name="StableDiffusionInpaintPipeline")
    edit_json(model_folder / "unet/config.json", in_channels=9)
    assert build(BuildConfig(str(model_folder), tmp_path / "model.mar"), Silent()).path.is_file()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.ckpt", b"x", "is a pickle by its name"),
        ("a.safetensors", b"x", "is not a valid safetensors file"),
        ("a.txt", b"x", "a.txt is neither a folder nor a .safetensors file"),
        ("/dev/zero", None, "is a device"),
        ("gone.safetensors", None, "does not exist"),
    ],
)
def test_what_is_no_checkpoint_is_named(
    tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    error = refusal(tmp_path / name, tmp_path)
    assert any(part in str(error) for part in reason.split("|"))


def test_a_lora_and_other_weights_that_do_not_ship_are_named(model_folder: Path, tmp_path: Path) -> None:
    save_file({"unet.to_k.lora_A.weight": torch.zeros(1)}, model_folder / "pytorch_lora_weights.safetensors")
    save_file({"<cat>": torch.zeros(1)}, model_folder / "cat.safetensors")
    (model_folder / "loras").mkdir()
    (model_folder / "loras/my_LoRA.bin").write_bytes(b"x")
    (model_folder / "unet/diffusion_pytorch_model.bin").write_bytes(b"x")
    (model_folder / "v1-5-pruned.ckpt").write_bytes(b"x")
    (model_folder / "notes.txt").write_text("mine")
    done = marquee("build", "--model", model_folder, "--out", tmp_path / "model.mar")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    named = {line.split()[1]: line for line in lines}
    assert sorted(named) == [
        "cat.safetensors",
        "loras/my_LoRA.bin",
        "pytorch_lora_weights.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "v1-5-pruned.ckpt",
    ]
    assert "it is a LoRA; to serve it, add --lora NAME=FILE" in named["pytorch_lora_weights.safetensors"]
    assert "it is a LoRA by its name" in named["loras/my_LoRA.bin"]
    assert "an embedding (textual inversion)" in named["cat.safetensors"]
    assert "another file of unet/ is" in named["unet/diffusion_pytorch_model.bin"]
    with zipfile.ZipFile(tmp_path / "model.mar") as archive:
        packed = [name for name in archive.namelist() if not name.startswith("handler/")]
        assert not [name for name in packed if "lora" in name.lower()]


@pytest.mark.parametrize(("sample", "size"), [(64, (512, 512)), (None, (512, 512)), ([64, 96], (768, 512))])
def test_another_models_size_comes_from_its_configuration(
    model_folder: Path, tmp_path: Path, sample: object, size: tuple[int, int]
) -> None:
    edit_json(model_folder / "unet/config.json", sample_size=sample)
    done = marquee("build", "--model", model_folder, "--out", tmp_path / "model.mar")
    assert done.returncode == 0, done.stderr
    written = f"num_inference_steps 30, guidance_scale 7.5, width {size[0]}, height {size[1]}"
    assert f"defaults        {written} (model-config.yaml)" in done.stdout
    shown = json.loads(marquee("inspect", tmp_path / "model.mar", "--json").stdout)
    assert shown["settings"]["marquee"]["defaults"]["width"] == size[0]


@pytest.mark.parametrize("sample", ["64", -1, 0.5, 10**9, [1], {"a": 1}, True])
def test_a_size_that_is_none_is_named(model_folder: Path, tmp_path: Path, sample: object) -> None:
    edit_json(model_folder / "unet/config.json", sample_size=sample)
    error = refusal(model_folder, tmp_path)
    assert "unet/config.json: sample_size is" in str(error)
    assert "--config FILE" in str(error.cure)
