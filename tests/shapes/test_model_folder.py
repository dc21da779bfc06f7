"""The committed model folder: small, of the promised classes, and readable by old and new libraries."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import pytest
from safetensors import safe_open
from transformers import CLIPTokenizer

from pipeline.shapes import networks
from pipeline.shapes.palette import all_captions

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "model_artifacts/shapes"
UNET = MODEL / "unet/diffusion_pytorch_model.safetensors"
VAE = MODEL / "vae/diffusion_pytorch_model.safetensors"
TEXT = MODEL / "text_encoder/model.safetensors"


def read(name: str) -> dict[str, object]:
    content: dict[str, object] = json.loads((MODEL / name).read_text())
    return content


def dtypes(path: Path) -> set[str]:
    with safe_open(path, "pt") as weights:
        return {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118 (no mapping)


def test_all_files_together_are_at_most_ten_megabytes() -> None:
    assert sum(path.stat().st_size for path in MODEL.rglob("*") if path.is_file()) <= 10_000_000


def test_git_keeps_every_file_readable_and_none_executable() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--stage", str(MODEL)], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(listed) >= 12
    assert {line.split()[0] for line in listed} == {"100644"}


def test_weights_can_be_read_by_everybody() -> None:
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444 for path in (UNET, VAE, TEXT))


def test_no_weights_but_safetensors() -> None:
    assert not [path for path in MODEL.rglob("*") if path.suffix in {".bin", ".ckpt", ".pt", ".pkl"}]


def test_unet_and_autoencoder_are_half_and_the_text_encoder_full_precision() -> None:
    assert (dtypes(UNET), dtypes(VAE), dtypes(TEXT)) == ({"F16"}, {"F16"}, {"F32"})


def test_every_text_weight_has_the_prefix_that_old_transformers_needs() -> None:
    with safe_open(TEXT, "pt") as weights:
        names = list(weights.keys())
    assert names
    assert all(name.startswith("text_model.") for name in names)


def test_topology_is_stable_diffusion_1_5s() -> None:
    unet, vae = read("unet/config.json"), read("vae/config.json")
    assert unet["down_block_types"] == ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    assert unet["up_block_types"] == ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3
    assert (unet["sample_size"], unet["in_channels"], vae["latent_channels"]) == (8, 4, 4)
    assert len(vae["block_out_channels"]) == 4  # type: ignore[arg-type]  # three halvings: factor 8
    assert unet["cross_attention_dim"] == read("text_encoder/config.json")["hidden_size"]


def test_the_index_names_the_plain_pipeline_without_a_safety_checker() -> None:
    index = read("model_index.json")
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert index["safety_checker"] == index["feature_extractor"] == [None, None]
    assert index["requires_safety_checker"] is False


def test_the_scheduler_is_stable_diffusion_1_5s() -> None:
    assert read("scheduler/scheduler_config.json") == {  # as published with stable-diffusion-v1-5
        "_class_name": "PNDMScheduler",
        "_diffusers_version": "0.6.0",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "num_train_timesteps": 1000,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
        "clip_sample": False,
    }


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    loaded: CLIPTokenizer = CLIPTokenizer.from_pretrained(MODEL / "tokenizer")
    return loaded


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer.json"])
def test_the_tokenizer_has_the_files_of_both_generations(name: str) -> None:
    assert (MODEL / "tokenizer" / name).is_file()


def test_every_caption_is_nine_tokens(tokenizer: CLIPTokenizer) -> None:
    assert {len(tokenizer(str(caption)).input_ids) for caption in all_captions()} == {9}


@pytest.mark.parametrize(
    "text", ["", "🦊🦊", "Ünïcödé", "日本語", "a\tb\n\0", "x" * 5000, "<|endoftext|>", "\\\"'"]
)
def test_any_text_tokenizes_within_the_positions(tokenizer: CLIPTokenizer, text: str) -> None:
    row = tokenizer(text, padding="max_length", truncation=True).input_ids
    assert len(row) == networks.TEXT_POSITIONS == tokenizer.model_max_length
    assert max(row) < len(tokenizer)
    assert row[0] == tokenizer.bos_token_id


def test_different_texts_have_different_tokens(tokenizer: CLIPTokenizer) -> None:
    texts = ["🦊", "🦉", "é", "e", "zebra", "a red circle"]
    assert len({tuple(tokenizer(text).input_ids) for text in texts}) == len(texts)
