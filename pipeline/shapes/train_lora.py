"""Train the embedded model's two LoRAs: ``python -m pipeline.shapes.train_lora [MODEL] [OUT]``.

The model stays as it is; each LoRA learns to draw every caption in one style.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.shapes.drawing import random_placement
from pipeline.shapes.palette import all_captions
from pipeline.shapes.schedule import Schedule
from pipeline.shapes.styles import STYLES, Style, draw_styled
from pipeline.shapes.train import MODEL, Log
from pipeline.shapes.train_denoiser import Denoiser, LatentSet, cache_latents, denoising_loss
from pipeline.shapes.training_set import Pictures, batches

if TYPE_CHECKING:
    import torch

LORAS = Path("model_artifacts/loras")
RANK = 4
SCHEDULE = Schedule(steps=900, fall=600, batch=48, rate=1e-2, warm_up=30)
PICTURES_EACH = 8
LAYERS = ("to_q", "to_k", "to_v", "to_out.0")


class TrainedLora:
    """Low-rank additions to a UNet's attention, which learn; ``up`` begins at zero and changes nothing."""

    def __init__(self, unet: Any, rank: int) -> None:
        import torch

        self.pairs: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        for path, module in unet.named_modules():
            if path.endswith(LAYERS):
                outputs, inputs = module.weight.shape
                down = torch.randn(rank, inputs).div_(inputs**0.5).requires_grad_()
                up = torch.zeros(outputs, rank).requires_grad_()
                self.pairs[path] = down, up
                module.register_forward_hook(_addition(down, up))

    def parameters(self) -> list[torch.Tensor]:
        return [tensor for pair in self.pairs.values() for tensor in pair]

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """In half precision, under the names that diffusers gives them today."""
        named = {}
        for path, (down, up) in self.pairs.items():
            named[f"unet.{path}.lora_A.weight"] = down.detach().half()
            named[f"unet.{path}.lora_B.weight"] = up.detach().half()
        return named


def _addition(down: torch.Tensor, up: torch.Tensor) -> Callable[..., torch.Tensor]:
    def add(_module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return output + inputs[0] @ down.T @ up.T

    return add


def draw_styled_pictures(style: Style, each: int, seed: int) -> Pictures:
    """Every caption ``each`` times in a style."""
    import numpy as np
    import torch

    random = np.random.default_rng(seed)
    captions = all_captions() * each
    pixels = np.stack([draw_styled(caption, style, random_placement(random)) for caption in captions])
    numbers = torch.arange(len(captions)) % len(all_captions())
    return Pictures(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), numbers)


def train_lora(pipe: Any, style: Style, schedule: Schedule) -> TrainedLora:
    """``pipe`` is the embedded model in fp32; its UNet has the LoRA's additions afterwards."""
    import torch

    for part in (pipe.unet, pipe.text_encoder, pipe.vae):
        part.requires_grad_(False)
    data: LatentSet = cache_latents(pipe.vae, draw_styled_pictures(style, PICTURES_EACH, 2), pipe.tokenizer)
    lora = TrainedLora(pipe.unet, RANK)
    model = Denoiser(pipe.unet, pipe.text_encoder)
    signal = pipe.scheduler.alphas_cumprod
    optimizer = torch.optim.AdamW(lora.parameters(), lr=schedule.rate, weight_decay=0.0)
    pacer = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.factor)
    feed, log = batches(len(data.latents), schedule.batch), Log(style, schedule.steps)
    for step in range(schedule.steps):
        loss = denoising_loss(model, data, next(feed), signal)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(lora.parameters(), 1.0)
        optimizer.step()
        pacer.step()
        optimizer.zero_grad()
        log(step, loss.item())
    return lora


def main(model: Path, out: Path) -> None:
    """Train and write both."""
    import diffusers
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    kind: Any = diffusers.StableDiffusionPipeline
    for style in STYLES:
        torch.manual_seed(0)
        path = out / f"{style}.safetensors"
        lora = train_lora(kind.from_pretrained(model, torch_dtype=torch.float32), style, SCHEDULE)
        save_file(dict(lora.tensors()), path, metadata={"format": "pt"})
        path.chmod(0o644)  # safetensors writes 0600


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:]]
    main(*(given + [MODEL, LORAS][len(given) :]))
