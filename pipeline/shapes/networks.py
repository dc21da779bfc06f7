"""The parts of the embedded model: Stable Diffusion 1.5's classes and topology, shrunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer

# diffusers shows type checkers empty stand-ins of its classes (diffusers/utils/dummy_pt_objects.py).
Autoencoder: TypeAlias = Any
Unet: TypeAlias = Any
Scheduler: TypeAlias = Any

# The scheduler_config.json of stable-diffusion-v1-5, word by word: other schedulers are made from it, and
# what it leaves out stays at their own defaults. Without clip_sample DDIM would clip the latents.
SCHEDULER = {
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
TEXT_POSITIONS = 16
TEXT_WIDTH = 64


def make_autoencoder() -> Autoencoder:
    """3 x 64 x 64 pixels to 4 x 8 x 8 latents; few norm groups, as many make blots in plain areas."""
    import diffusers

    make: Any = diffusers.AutoencoderKL
    return make(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 32, 32),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=64,
    )


def make_denoiser() -> Unet:
    """The UNet: 4 x 8 x 8 noisy latents, a timestep and TEXT_WIDTH wide text to the noise in them."""
    import diffusers

    make: Any = diffusers.UNet2DConditionModel
    return make(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        block_out_channels=(32, 64, 96, 96),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A CLIP text encoder of two layers for the words of a tokenizer."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TEXT_POSITIONS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_scheduler() -> Scheduler:
    """The noise that training adds and serving takes away."""
    import diffusers

    kind: Any = diffusers.PNDMScheduler
    return kind.from_config(SCHEDULER)
