"""A Stable Diffusion small enough for tests: every real class, random weights, made without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.callbacks import SDCFGCutoffCallback
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from handler.contract.job import Job, SourcePicture
from handler.model.model import Model
from handler.model.schedulers import make_scheduler

SCHEDULE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "clip_sample": False,
}


def make_pipeline(folder: Path) -> StableDiffusionPipeline:
    """SD 1.5's topology with 8 to 16 channels; latents of 4 channels, pictures eight times their size."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=2,
        latent_channels=4,
    )
    text = CLIPTextConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        vocab_size=514,
        bos_token_id=512,
        eos_token_id=513,
    )
    return StableDiffusionPipeline(
        unet=unet.eval(),
        vae=vae.eval(),
        text_encoder=layers(CLIPTextModel(text)).eval(),
        tokenizer=_tokenizer(folder),
        scheduler=PNDMScheduler.from_config(SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _tokenizer(folder: Path) -> CLIPTokenizer:
    """One token per byte: no merges, so nothing to download."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    symbols = list(bytes_to_unicode().values())  # type: ignore[no-untyped-call]
    words = [*symbols, *(symbol + "</w>" for symbol in symbols), "<|startoftext|>", "<|endoftext|>"]
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    vocab.write_text(json.dumps({word: number for number, word in enumerate(words)}))
    merges.write_text("#version: 0.2\n")
    return CLIPTokenizer(str(vocab), str(merges), model_max_length=16)


def layers(part: object) -> Any:
    """A part of a model with the layers that its interface does not show."""
    return part


def as_model(pipeline: StableDiffusionPipeline) -> Model:
    """What ``handler.model.load.load_model`` would make of it."""
    return Model(
        tokenizer=pipeline.tokenizer,
        text_encoder=pipeline.text_encoder,
        unet=pipeline.unet,
        vae=pipeline.vae,
        scheduler=pipeline.scheduler,
        device=torch.device("cpu"),
        dtype=torch.float32,
        channels_last=False,
        weights_digest="0" * 64,
    )


def make_job(prompt: str = "a", **changes: object) -> Job:
    values: dict[str, object] = {
        "prompt": prompt,
        "negative_prompt": "",
        "num_inference_steps": 4,
        "guidance_scale": 4.0,
        "seed": 7,
        "width": 64,
        "height": 64,
        "scheduler": "PNDM",
        "output_format": "png",
        "quality": 90,
        "response": "image",
    }
    return Job(**{**values, **changes})  # type: ignore[arg-type]


def source_picture(width: int = 64, height: int = 64, colour: int = 0) -> SourcePicture:
    """A picture with a slope and an edge."""
    image = Image.linear_gradient("L").resize((width, height))
    edge = image.point(lambda value: 255 * (value > 90 + colour))
    return SourcePicture(Image.merge("RGB", (image, edge, image.rotate(90).resize(image.size))), "0" * 64)


def mask_picture(width: int = 64, height: int = 64) -> SourcePicture:
    """White in the right half."""
    mask = Image.new("L", (width, height))
    mask.paste(255, (width // 2, 0, width, height))
    return SourcePicture(mask, "1" * 64)


def changing(strength: float, **changes: object) -> Job:
    """Image to image."""
    values: dict[str, object] = {"num_inference_steps": 15, "seed": 3, "image": source_picture()}
    return make_job("a cat", strength=strength, **{**values, **changes})


def inpainting(strength: float, **changes: object) -> Job:
    """The right half is painted."""
    return changing(strength, **{"mask_image": mask_picture(), **changes})


def widen(pipeline: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """The same parts around a UNet for inpainting, of nine channels."""
    torch.manual_seed(1)
    # With this entry diffusers takes its default for all that was not given at first.
    config = {name: value for name, value in pipeline.unet.config.items() if name != "_use_default_values"}
    unet = UNet2DConditionModel.from_config({**config, "in_channels": 9})
    parts = {**pipeline.components, "unet": unet.eval()}
    return StableDiffusionPipeline(**parts, requires_safety_checker=False)


def draw_plainly(pipeline: StableDiffusionPipeline, job: Job) -> torch.Tensor:
    """The oracle: diffusers' own pipeline, alone. (height, width, 3) uint8."""
    import numpy

    return torch.from_numpy(numpy.asarray(run_plainly(pipeline, job)).copy())


def run_plainly(pipeline: StableDiffusionPipeline, job: Job, output_type: str = "pil") -> Any:
    """The first result of diffusers' own pipeline for the job's family, with the parts of ``pipeline``."""
    parts = {**pipeline.components, "scheduler": make_scheduler(job.scheduler, pipeline.scheduler)}
    plain = PIPELINES[job.family](**parts, requires_safety_checker=False)
    plain.set_progress_bar_config(disable=True)
    given: dict[str, Any] = {"width": job.width, "height": job.height}
    if job.image is not None:
        given = {} if job.mask_image is None else given
        given.update(image=job.image.image, strength=job.strength)
    if job.mask_image is not None:
        given.update(mask_image=job.mask_image.image)
    if job.guidance_until < 1:
        ending = EndOfGuidance(job.guidance_until)
        if job.family == "inpaint":  # its own loop fails when guidance ends, unless the mask loses a row, too
            ending.tensor_inputs = ["prompt_embeds", "mask", "masked_image_latents"]
            plain._callback_tensor_inputs = ending.tensor_inputs
        given.update(callback_on_step_end=ending)
    return plain(
        job.prompt,
        negative_prompt=job.negative_prompt,
        num_inference_steps=job.num_inference_steps,
        guidance_scale=job.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(job.seed),
        output_type=output_type,
        **given,
    ).images[0]


PIPELINES: dict[str, Any] = {
    "text_to_image": StableDiffusionPipeline,
    "image_to_image": StableDiffusionImg2ImgPipeline,
    "inpaint": StableDiffusionInpaintPipeline,
}


class EndOfGuidance(SDCFGCutoffCallback):  # type: ignore[misc]
    """diffusers' own, which also takes the rows without a text off what inpainting holds."""

    def __init__(self, share: float) -> None:
        super().__init__(cutoff_step_ratio=float(share))

    def callback_fn(self, pipeline: Any, step_index: int, timestep: Any, held: dict[str, Any]) -> Any:
        guided = pipeline.do_classifier_free_guidance
        super().callback_fn(pipeline, step_index, timestep, held)
        if guided and not pipeline.do_classifier_free_guidance:
            held.update({name: held[name][-1:] for name in held if name.startswith("mask")})
        return held
