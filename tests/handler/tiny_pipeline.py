"""A random-weight Stable Diffusion folder, small enough to draw in milliseconds, with SD 1.5's classes."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer


def write_tiny_pipeline(folder: Path) -> Path:
    """Write the folder and return it; the same weights every time."""
    torch.manual_seed(0)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
        ),
        text_encoder=CLIPTextModel(_text_config()),
        tokenizer=_tokenizer(folder / "vocabulary"),
        unet=UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            attention_head_dim=4,
            cross_attention_dim=16,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        ),
        scheduler=PNDMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            skip_prk_steps=True,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder / "model")
    scheduler = folder / "model" / "scheduler" / "scheduler_config.json"
    # SD 1.5's file says this, too, though PNDM itself has no use for it.
    scheduler.write_text(json.dumps({**json.loads(scheduler.read_text()), "clip_sample": False}))
    return folder / "model"


def _text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=516,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
        bos_token_id=514,
        eos_token_id=515,
        pad_token_id=515,
    )


def _tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's byte alphabet, two merges and the two special tokens: any text has tokens."""
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(letter + "</w>" for letter in letters), "ca", "cat</w>"]
    vocabulary = {word: number for number, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=16)
    return tokenizer
