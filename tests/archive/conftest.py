"""A real Stable Diffusion pipeline with random weights, small enough to make on the spot."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def saved_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What transformers 5 and diffusers save: no prefix in the text encoder, only tokenizer.json."""
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    sizes = {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, **sizes
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=514,
                hidden_size=8,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=16,
                bos_token_id=512,
                eos_token_id=513,
            )
        ),
        tokenizer=CLIPTokenizer(vocab=_vocabulary(), merges=[], model_max_length=16),
        unet=UNet2DConditionModel(
            sample_size=8,
            cross_attention_dim=8,
            attention_head_dim=2,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            **sizes,
        ),
        scheduler=PNDMScheduler(beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def model_folder(saved_pipeline: Path, tmp_path: Path) -> Path:
    """A private copy of the saved pipeline, to be spoiled."""
    return Path(shutil.copytree(saved_pipeline, tmp_path / "tiny"))


def _vocabulary() -> dict[str, int]:
    """CLIP's 256 byte symbols, alone and at the end of a word, and its two special tokens."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    symbols = list(bytes_to_unicode().values())  # type: ignore[no-untyped-call]
    words = [*symbols, *(f"{symbol}</w>" for symbol in symbols), "<|startoftext|>", "<|endoftext|>"]
    return {word: number for number, word in enumerate(words)}
