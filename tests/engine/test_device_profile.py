"""Fused projections draw the same, and the profile says what a model is run with."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from tiny import layers

from handler.contract.settings import Settings
from handler.engine.accelerate.compile_unet import refuse_old_gpu
from handler.engine.accelerate.fused import fuse_projections, is_fused
from handler.engine.accelerate.gpu import tune_for_gpu
from handler.engine.accelerate.graphs import GraphedUNet
from handler.engine.profile import choose_profile
from handler.model.model import Model


@pytest.fixture
def fused(model: Model) -> Model:
    mine = replace(model, unet=copy.deepcopy(model.unet), vae=copy.deepcopy(model.vae))
    fuse_projections(mine)
    return mine


def storage_bytes(module: torch.nn.Module) -> int:
    storages = {tensor.untyped_storage().data_ptr(): tensor for tensor in module.parameters()}
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())


@torch.inference_mode()
def test_fused_projections_draw_the_same(model: Model, fused: Model) -> None:
    latent, texts = torch.randn(3, 4, 8, 8), torch.randn(3, 16, model.unet.config.cross_attention_dim)
    times = torch.tensor([1.0, 500.0, 900.0])
    wanted = model.unet(latent, times, texts, return_dict=False)[0]
    torch.testing.assert_close(
        fused.unet(latent, times, texts, return_dict=False)[0], wanted, rtol=0, atol=1e-5
    )
    pictures = model.vae.decode(latent, return_dict=False)[0]
    torch.testing.assert_close(fused.vae.decode(latent, return_dict=False)[0], pictures, rtol=0, atol=1e-5)
    assert is_fused(fused.unet)
    assert is_fused(fused.vae)


def test_fused_projections_are_what_is_called(fused: Model) -> None:
    attention = layers(fused.unet).mid_block.attentions[0].transformer_blocks[0].attn1
    called: list[int] = []
    attention.to_qkv.register_forward_hook(lambda *_: called.append(1))
    with torch.inference_mode():
        fused.unet(torch.randn(1, 4, 8, 8), 1, torch.randn(1, 16, fused.unet.config.cross_attention_dim))
    assert called == [1]


def test_fusing_keeps_no_second_copy_of_the_weights(model: Model, fused: Model) -> None:
    for part in ("unet", "vae"):
        assert storage_bytes(getattr(fused, part)) == storage_bytes(getattr(model, part))
        shared = getattr(fused, part).state_dict()
        for name, tensor in getattr(model, part).state_dict().items():
            assert torch.equal(shared[name], tensor), name


def test_a_cpu_keeps_the_plain_pipelines_bits(model: Model) -> None:
    assert tune_for_gpu(model, Settings()) is model
    profile = choose_profile(model, Settings())
    assert profile.name == "cpu eager"
    assert not profile.vectorised
    assert not profile.fused_qkv
    assert profile.graph_rows == ()
    assert profile.attention == "sdpa"
    assert not profile.channels_last


def test_the_profile_says_what_is_on(fused: Model) -> None:
    rows = (torch.zeros(2, 4, 8, 8), torch.zeros(2), torch.zeros(2, 16, 16))
    unet = GraphedUNet(fused.unet, rows, [2, 1], lambda count: torch.zeros_like)
    profile = choose_profile(replace(fused, unet=unet, channels_last=True), Settings())
    assert profile.name == "cpu graphs"
    assert profile.graph_rows == (1, 2)
    assert profile.fused_qkv
    assert profile.channels_last


def test_a_gpu_that_cannot_compile_is_refused_at_once() -> None:
    with pytest.raises(SystemExit, match="sm_60"):
        refuse_old_gpu((6, 0))
    refuse_old_gpu((7, 0))
    refuse_old_gpu((9, 0))
