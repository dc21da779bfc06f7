"""A diffusers pipeline's tensors under the names that Stable Diffusion's own code gave them, in one file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def write_checkpoint(folder: Path, path: Path, dtype: torch.dtype = torch.float32) -> Path:
    """The single-file checkpoint of a saved pipeline whose blocks have ``layers_per_block`` 1 or 2."""
    config = json.loads((folder / "unet/config.json").read_text())
    layers, blocks = config["layers_per_block"], len(config["block_out_channels"])
    vae_blocks = len(json.loads((folder / "vae/config.json").read_text())["block_out_channels"])
    unet = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
    vae = load_file(folder / "vae/diffusion_pytorch_model.safetensors")
    text = load_file(folder / "text_encoder/model.safetensors")
    content = dict(_renamed(unet, _unet_names(layers, blocks), RESNET, "model.diffusion_model."))
    shortcut = {"conv_shortcut": "nin_shortcut"}
    content |= dict(_renamed(vae, _vae_names(layers, vae_blocks), shortcut, "first_stage_model."))
    prefix = "cond_stage_model.transformer.text_model."
    content |= {prefix + name.removeprefix("text_model."): tensor for name, tensor in text.items()}
    content = {name: tensor.to(dtype).contiguous() for name, tensor in content.items()}
    for name in [name for name in content if name.startswith("first_stage_model.") and _is_projection(name)]:
        content[name] = content[name][:, :, None, None].contiguous()
    save_file(content, path)
    return path


def _is_projection(name: str) -> bool:
    """The VAE's attention was written with 1x1 convolutions."""
    return ".attn_1." in name and ".norm." not in name and name.endswith("weight")


def _renamed(
    tensors: Tensors, places: dict[str, str], inner: dict[str, str], prefix: str
) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in tensors.items():
        place = max((place for place in places if name.startswith(f"{place}.")), key=len, default="")
        rest = name[len(place) + 1 :] if place else name
        part, _, kind = rest.rpartition(".")
        if ".resnets." in f".{place}" and part in inner:
            rest = f"{inner[part]}.{kind}"
        if places.get(place, "").endswith("attn_1"):
            rest = f"{ATTENTION[part]}.{kind}"
        yield prefix + (f"{places[place]}.{rest}" if place else rest), tensor


def _unet_names(layers: int, blocks: int) -> dict[str, str]:
    names = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }
    for block in range(blocks):
        for layer in range(layers):
            at = (layers + 1) * block + layer + 1
            names[f"down_blocks.{block}.resnets.{layer}"] = f"input_blocks.{at}.0"
            names[f"down_blocks.{block}.attentions.{layer}"] = f"input_blocks.{at}.1"
        names[f"down_blocks.{block}.downsamplers.0.conv"] = f"input_blocks.{(layers + 1) * (block + 1)}.0.op"
        for layer in range(layers + 1):
            at = (layers + 1) * block + layer
            names[f"up_blocks.{block}.resnets.{layer}"] = f"output_blocks.{at}.0"
            names[f"up_blocks.{block}.attentions.{layer}"] = f"output_blocks.{at}.1"
        last = (layers + 1) * block + layers
        names[f"up_blocks.{block}.upsamplers.0"] = f"output_blocks.{last}.{1 if block == 0 else 2}"
    return names


def _vae_names(layers: int, blocks: int) -> dict[str, str]:
    names = {}
    for coder in ("encoder", "decoder"):
        names[f"{coder}.conv_norm_out"] = f"{coder}.norm_out"
        names[f"{coder}.mid_block.resnets.0"] = f"{coder}.mid.block_1"
        names[f"{coder}.mid_block.resnets.1"] = f"{coder}.mid.block_2"
        names[f"{coder}.mid_block.attentions.0"] = f"{coder}.mid.attn_1"
    for block in range(blocks):
        for layer in range(layers):
            names[f"encoder.down_blocks.{block}.resnets.{layer}"] = f"encoder.down.{block}.block.{layer}"
        names[f"encoder.down_blocks.{block}.downsamplers.0.conv"] = f"encoder.down.{block}.downsample.conv"
        theirs = blocks - 1 - block
        for layer in range(layers + 1):
            names[f"decoder.up_blocks.{block}.resnets.{layer}"] = f"decoder.up.{theirs}.block.{layer}"
        names[f"decoder.up_blocks.{block}.upsamplers.0.conv"] = f"decoder.up.{theirs}.upsample.conv"
    return names
