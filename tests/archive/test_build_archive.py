"""The archive that `marquee build` writes: its files, their names and their bytes."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from archive_command import ROOT, edit_json, marquee
from safetensors.torch import load_file, save_file

from pipeline.archive.build import BuildConfig, Built, build
from pipeline.archive.selection import Dtype
from pipeline.errors import MarqueeError
from pipeline.progress import Silent

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


def build_from(folder: Path, out: Path, dtype: Dtype = "keep", **options: Any) -> Built:
    return build(BuildConfig(model=str(folder), out=out, dtype=dtype, **options), Silent())


def unpack(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    return folder


def test_same_inputs_give_the_same_bytes_in_another_folder_on_another_day(
    model_folder: Path, tmp_path: Path
) -> None:
    first = build_from(model_folder, tmp_path / "one.mar")
    other = Path(shutil.copytree(model_folder, tmp_path / "elsewhere" / "copy"))
    for path in other.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    before = os.umask(0o077)
    try:
        second = build_from(other, tmp_path / "deep" / "two.mar")
    finally:
        os.umask(before)
    assert second.path.read_bytes() == first.path.read_bytes()
    assert (first.archive_digest, first.weights_digest) == (second.archive_digest, second.weights_digest)
    assert first.path.stat().st_mode & 0o777 == 0o644


def test_the_embedded_model_gives_the_same_bytes_wherever_its_folder_lies(tmp_path: Path) -> None:
    embedded = ROOT / "model_artifacts/shapes"
    first = build_from(embedded, tmp_path / "one.mar").path.read_bytes()
    copied = Path(shutil.copytree(embedded, tmp_path / "x"))
    (copied / "README.md").unlink()  # it never ships
    assert build_from(copied, tmp_path / "two.mar").path.read_bytes() == first
    clone = Path(shutil.copytree(embedded, tmp_path / "clone/model_artifacts/shapes"))
    shutil.copyfile(embedded.parent / "model-config.yaml", clone.parent / "model-config.yaml")
    assert build_from(clone, tmp_path / "three.mar").path.read_bytes() == first
    edit_json(copied / "scheduler/scheduler_config.json", beta_start=0.001)
    built = unpack(build_from(copied, tmp_path / "four.mar").path, tmp_path / "four")
    assert (built / "model-config.yaml").read_bytes() != (embedded.parent / "model-config.yaml").read_bytes()


def test_entries_are_sorted_stored_undated_and_readable_as_a_stream(
    model_folder: Path, tmp_path: Path
) -> None:
    build_from(model_folder, tmp_path / "model.mar")
    with zipfile.ZipFile(tmp_path / "model.mar") as archive:
        entries = archive.infolist()
        assert archive.testzip() is None
    names = [entry.filename for entry in entries]
    assert names == sorted(names)
    assert [entry.header_offset for entry in entries] == sorted(entry.header_offset for entry in entries)
    for entry in entries:
        assert entry.date_time == (1980, 1, 1, 0, 0, 0)
        assert entry.compress_type == zipfile.ZIP_STORED
        assert entry.external_attr >> 16 == 0o100644
        # Bit 3 would put sizes behind the data, where Java cannot find them in a stored entry.
        assert entry.flag_bits & 0x8 == 0


def test_sums_are_what_sha256sum_reads(model_folder: Path, tmp_path: Path) -> None:
    import hashlib
    import subprocess

    built = build_from(model_folder, tmp_path / "model.mar")
    folder = unpack(tmp_path / "model.mar", tmp_path / "out")
    subprocess.run(["sha256sum", "--quiet", "-c", "MAR-INF/SHA256SUMS"], cwd=folder, check=True, timeout=60)
    sums = (folder / "MAR-INF/SHA256SUMS").read_bytes()
    assert built.archive_digest == hashlib.sha256(sums).hexdigest()
    assert sums.splitlines() == sorted(sums.splitlines())
    assert built.files == len(sums.splitlines()) + 1
    listed = subprocess.run(
        "find . -type f | sed s,^./,, | xargs sha256sum | LC_ALL=C sort | sha256sum",
        cwd=folder / "model",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert built.weights_digest == listed.stdout.split()[0]


def test_plain_diffusers_draws_the_same_picture_from_the_archive(
    saved_pipeline: Path, tmp_path: Path
) -> None:
    from diffusers import StableDiffusionPipeline

    build_from(saved_pipeline, tmp_path / "model.mar")
    folder = unpack(tmp_path / "model.mar", tmp_path / "out")
    assert all(name.startswith("text_model.") for name in load_file(folder / "model" / TEXT))
    pictures = []
    for source in (saved_pipeline, folder / "model"):
        pipeline = StableDiffusionPipeline.from_pretrained(source)
        pipeline.set_progress_bar_config(disable=True)
        noise = torch.Generator("cpu").manual_seed(1)
        pictures.append(pipeline("hi", num_inference_steps=2, generator=noise).images[0].tobytes())
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize(("dtype", "stored"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_dtype_casts_unet_and_vae_and_leaves_the_text_encoder_fp32(
    saved_pipeline: Path, tmp_path: Path, dtype: Dtype, stored: torch.dtype
) -> None:
    build_from(saved_pipeline, tmp_path / "model.mar", dtype)
    folder = unpack(tmp_path / "model.mar", tmp_path / "out") / "model"
    before, after = load_file(saved_pipeline / UNET), load_file(folder / UNET)
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], before[name].to(stored)) for name in before)
    assert {tensor.dtype for tensor in load_file(folder / TEXT).values()} == {torch.float32}


@pytest.mark.parametrize("variant", ["fp16", None])
def test_plain_diffusers_runs_what_was_saved_in_half_precision(
    saved_pipeline: Path, tmp_path: Path, variant: str | None
) -> None:
    from diffusers import StableDiffusionPipeline

    halves = StableDiffusionPipeline.from_pretrained(saved_pipeline, torch_dtype=torch.float16)
    halves.save_pretrained(tmp_path / "half", variant=variant)
    assert json.loads((tmp_path / "half/text_encoder/config.json").read_text())["dtype"] == "float16"
    built = build_from(tmp_path / "half", tmp_path / "model.mar")
    folder = unpack(built.path, tmp_path / "out") / "model"
    assert {tensor.dtype for tensor in load_file(folder / UNET).values()} == {torch.float16}
    assert {tensor.dtype for tensor in load_file(folder / TEXT).values()} == {torch.float32}
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline("hi", num_inference_steps=1).images[0].size == (64, 64)


def test_a_value_that_fp16_cannot_hold_is_named(model_folder: Path, tmp_path: Path) -> None:
    tensors = load_file(model_folder / UNET)
    tensors["conv_in.bias"][0] = 1e6
    save_file(tensors, model_folder / UNET)
    with pytest.raises(MarqueeError, match=r"conv_in\.bias goes up to 1e\+06") as caught:
        build_from(model_folder, tmp_path / "model.mar", "fp16")
    assert "bf16" in str(caught.value.cure)
    assert not (tmp_path / "model.mar").exists()


def test_only_what_serves_is_shipped(model_folder: Path, tmp_path: Path) -> None:
    bare = build_from(model_folder, tmp_path / "bare.mar")
    edit_json(
        model_folder / "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
        requires_safety_checker=True,
    )
    (model_folder / "safety_checker").mkdir()
    for name in ("safety_checker/model.safetensors", "unet/diffusion_pytorch_model.non_ema.safetensors"):
        shutil.copyfile(model_folder / UNET, model_folder / name)
    for name in ("unet/diffusion_pytorch_model.bin", "README.md", "v1-5-pruned.ckpt", ".gitattributes"):
        (model_folder / name).write_bytes(b"not needed")
    full = build_from(model_folder, tmp_path / "full.mar")
    with zipfile.ZipFile(full.path) as archive, zipfile.ZipFile(bare.path) as without:
        assert archive.namelist() == without.namelist()
        index = json.loads(archive.read("model/model_index.json"))
    assert index["safety_checker"] == [None, None] == index["feature_extractor"]
    assert index["requires_safety_checker"] is False


def test_fp16_variant_ships_under_the_plain_name(model_folder: Path, tmp_path: Path) -> None:
    halves = {name: tensor.half() for name, tensor in load_file(model_folder / UNET).items()}
    save_file(halves, model_folder / "unet/diffusion_pytorch_model.fp16.safetensors")
    kept = unpack(build_from(model_folder, tmp_path / "keep.mar").path, tmp_path / "keep")
    assert load_file(kept / "model" / UNET)["conv_in.bias"].dtype == torch.float16
    full = unpack(build_from(model_folder, tmp_path / "full.mar", "fp32").path, tmp_path / "full")
    assert torch.equal(
        load_file(full / "model" / UNET)["conv_in.bias"], load_file(model_folder / UNET)["conv_in.bias"]
    )


def test_shards_of_a_variant_get_plain_names_and_a_list_that_fits(model_folder: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(model_folder / "unet")
    (model_folder / UNET).unlink()
    unet.save_pretrained(model_folder / "unet", max_shard_size="100KB", variant="fp16")
    folder = unpack(build_from(model_folder, tmp_path / "model.mar", "fp16").path, tmp_path / "out")
    loaded = UNet2DConditionModel.from_pretrained(folder / "model/unet")
    shards = sorted(path.name for path in (folder / "model/unet").glob("*.safetensors"))
    assert len(shards) > 1
    assert shards[0] == f"diffusion_pytorch_model-00001-of-{len(shards):05}.safetensors"
    # Loading casts back to fp32, so the fp16 values are compared as such.
    for name, tensor in unet.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half().to(loaded.dtype)), name


def test_leftover_buffer_of_old_text_encoders_is_dropped(model_folder: Path, tmp_path: Path) -> None:
    tensors = load_file(model_folder / TEXT)
    tensors["text_model.embeddings.position_ids"] = torch.arange(16)[None]
    save_file(tensors, model_folder / TEXT)
    folder = unpack(build_from(model_folder, tmp_path / "model.mar").path, tmp_path / "out")
    assert not any("position_ids" in name for name in load_file(folder / "model" / TEXT))


def test_vocabulary_for_older_transformers_says_the_same(saved_pipeline: Path, tmp_path: Path) -> None:
    folder = unpack(build_from(saved_pipeline, tmp_path / "model.mar").path, tmp_path / "out")
    source = json.loads((saved_pipeline / "tokenizer/tokenizer.json").read_text())["model"]
    assert json.loads((folder / "model/tokenizer/vocab.json").read_text()) == source["vocab"]
    assert (folder / "model/tokenizer/merges.txt").read_text().splitlines() == ["#version: 0.2"]


def test_handler_in_the_archive_is_the_source_without_its_leavings(
    saved_pipeline: Path, tmp_path: Path
) -> None:
    folder = unpack(build_from(saved_pipeline, tmp_path / "model.mar").path, tmp_path / "out")
    assert (folder / "marquee_handler.py").read_bytes() == (ROOT / "handler/marquee_handler.py").read_bytes()
    assert (folder / "handler/__init__.py").read_bytes() == (ROOT / "handler/__init__.py").read_bytes()
    assert not (folder / "handler/marquee_handler.py").exists()
    assert not [path for path in folder.rglob("*") if "__pycache__" in path.parts or path.suffix == ".pyc"]
    assert not [
        path.name for path in folder.glob("*.py") if path.stem in {"types", "json", "random", "handler"}
    ]


def test_command_prints_the_digests_and_inspect_agrees(saved_pipeline: Path, tmp_path: Path) -> None:
    done = marquee("build", "--model", saved_pipeline, "--out", tmp_path / "model.mar")
    assert done.returncode == 0, done.stderr
    shown = marquee("inspect", tmp_path / "model.mar", "--json")
    found = json.loads(shown.stdout)
    assert found["ok"]
    assert f"archive digest  {found['archive_digest']}" in done.stdout
    assert f"weights digest  {found['weights_digest']}" in done.stdout
    assert found["settings"]["marquee"]["defaults"]["width"] == 64
    assert found["versions"]["marquee"] == "0.1.0"
