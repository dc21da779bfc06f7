"""``build --safety-checker``: packed whole and read back with the same verdicts, or refused by name."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from archive_command import edit_json
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_checker import flag_half, make_checker, pack_checker

from handler.contract.settings import Settings
from handler.model.load import load_model
from handler.model.weights import ModelError
from pipeline.archive.build import BuildConfig, Built, build
from pipeline.archive.inspection import inspect_archive
from pipeline.errors import MarqueeError
from pipeline.progress import Silent

WEIGHTS = "safety_checker/model.safetensors"
CONFIG = "safety_checker/config.json"
EXTRACTOR = "feature_extractor/preprocessor_config.json"
PICTURES = [
    Image.linear_gradient("L").resize((80, 64)).rotate(30 * turn).convert("RGB", None) for turn in range(8)
]


def build_from(folder: Path, out: Path, **options: Any) -> Built:
    options = {"safety_checker": True, **options}
    return build(BuildConfig(model=str(folder), out=out, **options), Silent())


def unpack(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    return folder


@pytest.fixture(scope="session")
def checker() -> tuple[Any, Any]:
    module, extractor = make_checker()
    flag_half(module, extractor, PICTURES)
    return module, extractor


@pytest.fixture
def checked_folder(model_folder: Path, checker: tuple[Any, Any]) -> Path:
    pack_checker(model_folder, *checker)
    return model_folder


def old_names(folder: Path) -> None:
    """As published files have it: CLIP's tensors below one more prefix, with a buffer of that time."""
    tensors = {
        name.replace("vision_model.", "vision_model.vision_model.", 1)
        if not name.startswith("vision_model.vision_model.")
        else name: tensor
        for name, tensor in load_file(folder / WEIGHTS).items()
    }
    tensors["vision_model.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    save_file(tensors, folder / WEIGHTS)


@pytest.mark.parametrize("published", [False, True])
def test_a_packed_checker_says_the_same_of_every_picture(
    checked_folder: Path, tmp_path: Path, checker: tuple[Any, Any], published: bool
) -> None:
    if published:
        old_names(checked_folder)
    built = build_from(checked_folder, tmp_path / "model.mar")
    model = load_model(unpack(built.path, tmp_path / "out") / "model", Settings())
    module, extractor = checker
    pixels = extractor(PICTURES, return_tensors="pt").pixel_values
    _, wanted = module(clip_input=pixels, images=torch.zeros(len(PICTURES), 1))
    assert model.safety_checker is not None
    assert model.safety_checker.flagged(PICTURES) == wanted
    assert 0 < sum(wanted) < len(PICTURES)
    found = inspect_archive(built.path, Silent())
    assert found.problems == ()
    assert found.safety_checker is not None
    assert (found.safety_checker.sha256, found.safety_checker.action) == (model.safety_checker.digest, "blur")


def test_plain_diffusers_reads_the_packed_checker(checked_folder: Path, tmp_path: Path) -> None:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    folder = unpack(build_from(checked_folder, tmp_path / "model.mar").path, tmp_path / "out") / "model"
    index = json.loads((folder / "model_index.json").read_text())
    assert index["safety_checker"] == ["stable_diffusion", "StableDiffusionSafetyChecker"]
    wanted = StableDiffusionSafetyChecker.from_pretrained(checked_folder / "safety_checker").state_dict()
    loaded = StableDiffusionSafetyChecker.from_pretrained(folder / "safety_checker").state_dict()
    assert wanted.keys() == loaded.keys()
    assert all(torch.equal(wanted[name], loaded[name]) for name in wanted)


def test_the_same_folder_gives_the_same_bytes_and_fp16_is_half(checked_folder: Path, tmp_path: Path) -> None:
    first = build_from(checked_folder, tmp_path / "one.mar")
    assert build_from(checked_folder, tmp_path / "two.mar").archive_digest == first.archive_digest
    without = build_from(checked_folder, tmp_path / "bare.mar", safety_checker=False)
    assert without.weights_digest != first.weights_digest
    assert any("--safety-checker packs it" in warning for warning in without.warnings)
    half = build_from(checked_folder, tmp_path / "half.mar", dtype="fp16")
    tensors = load_file(unpack(half.path, tmp_path / "half") / "model" / WEIGHTS)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}


def change_tensors(folder: Path, **changes: torch.Tensor | None) -> None:
    tensors = {**load_file(folder / WEIGHTS), **changes}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, folder / WEIGHTS)


def test_what_is_missing_or_does_not_fit_is_named(checked_folder: Path, tmp_path: Path) -> None:
    def refused() -> str:
        with pytest.raises(MarqueeError) as caught:
            build_from(checked_folder, tmp_path / "model.mar")
        assert not (tmp_path / "model.mar").exists()
        return str(caught.value)

    whole = load_file(checked_folder / WEIGHTS)
    change_tensors(checked_folder, concept_embeds=None)
    assert "safety_checker/ lacks 1 of 44 tensors: concept_embeds" in refused()
    save_file({**whole, "lora.up": torch.zeros(1)}, checked_folder / WEIGHTS)
    assert "safety_checker/ holds what its config.json does not describe: lora.up" in refused()
    save_file({**whole, "concept_embeds": torch.zeros(16, 8)}, checked_folder / WEIGHTS)
    assert "concept_embeds has shape (16, 8); its config.json describes (17, 8)" in refused()
    save_file(whole, checked_folder / WEIGHTS)
    edit_json(checked_folder / EXTRACTOR, crop_size={"height": 224, "width": 224})
    assert f"{EXTRACTOR} crops pictures to (224, 224)" in refused()
    (checked_folder / EXTRACTOR).unlink()
    assert f"{EXTRACTOR} is missing" in refused()
    edit_json(checked_folder / CONFIG, vision_config={"hidden_size": "many"})
    (checked_folder / EXTRACTOR).write_text("{}")
    assert f"{CONFIG} says hidden_size many" in refused()
    edit_json(checked_folder / "model_index.json", safety_checker=["mine", "Checker"])
    assert "names 'Checker' as safety_checker; StableDiffusionSafetyChecker is served" in refused()


def test_a_folder_without_a_checker_has_nothing_to_pack(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MarqueeError, match=r"no folder safety_checker/ in it"):
        build_from(model_folder, tmp_path / "model.mar")


def test_pickles_of_a_checker_are_refused(checked_folder: Path, tmp_path: Path) -> None:
    (checked_folder / WEIGHTS).rename(checked_folder / "safety_checker/pytorch_model.bin")
    with pytest.raises(MarqueeError, match=r"safety_checker/ has no model\.safetensors, only .*pickles"):
        build_from(checked_folder, tmp_path / "model.mar")


def test_a_setting_that_nobody_carries_out_is_refused(checked_folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "model-config.yaml"
    config.write_text("marquee: {safety: withhold}\n")
    built = build_from(checked_folder, tmp_path / "model.mar", config=config)
    found = inspect_archive(built.path, Silent()).safety_checker
    assert found is not None
    assert found.action == "withhold"
    with pytest.raises(MarqueeError, match=r"marquee\.safety to withhold, and no checker is packed"):
        build_from(checked_folder, tmp_path / "other.mar", config=config, safety_checker=False)
    config.write_text("marquee: {safety: black}\n")
    with pytest.raises(MarqueeError, match="'black'; it must be one of send, blur, withhold"):
        build_from(checked_folder, tmp_path / "other.mar", config=config)


def test_the_handler_refuses_a_checker_that_could_flag_nothing(checked_folder: Path) -> None:
    tensor = load_file(checked_folder / WEIGHTS)["concept_embeds_weights"]
    change_tensors(checked_folder, concept_embeds_weights=tensor * torch.nan)
    with pytest.raises(ModelError, match="concept_embeds_weights holds numbers that are not finite"):
        load_model(checked_folder, Settings())
    change_tensors(checked_folder, concept_embeds_weights=tensor)
    edit_json(checked_folder / EXTRACTOR, crop_size={"height": 16, "width": 16})
    with pytest.raises(ModelError, match=r"makes pixels of shape \(1, 3, 16, 16\)"):
        load_model(checked_folder, Settings())
