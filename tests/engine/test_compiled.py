"""A compiled UNet may stand in only where it was made for; everywhere else the plain one answers."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from handler.engine.compiled import FOLDER, KEY, PACKAGE, CompiledUNet, compile_key, with_compiled_unet

SHAPES = {"rows": 4, "height": 8, "width": 8}


class Halves:
    """Stands where compiled code stands: tells its calls apart from the UNet's by its result."""

    def __call__(self, sample: torch.Tensor, timestep: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        assert timestep.shape == (len(sample),)
        return sample / 2


def _call(unet: Any, rows: int, side: int, model: Any) -> torch.Tensor:
    config = model.unet.config
    texts = torch.zeros(rows, 4, config.cross_attention_dim)
    with torch.inference_mode():
        return unet(torch.ones(rows, 4, side, side), torch.zeros(rows), encoder_hidden_states=texts)[0]


def test_only_the_shapes_it_was_compiled_for_reach_the_compiled_code(model: Any) -> None:
    unet = CompiledUNet(model.unet, Halves(), SHAPES)
    assert torch.equal(_call(unet, 4, 8, model), torch.full((4, 4, 8, 8), 0.5))
    assert not torch.equal(_call(unet, 5, 8, model), torch.full((5, 4, 8, 8), 0.5))
    assert not torch.equal(_call(unet, 2, 16, model), torch.full((2, 4, 16, 16), 0.5))


def test_one_timestep_may_stand_for_all_rows(model: Any) -> None:
    unet = CompiledUNet(model.unet, Halves(), SHAPES)
    texts = torch.zeros(3, 4, model.unet.config.cross_attention_dim)
    assert unet(torch.ones(3, 4, 8, 8), 1, encoder_hidden_states=texts)[0].shape == (3, 4, 8, 8)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"torch": "1.0"}, "torch: 1.0"),
        ({"processor": "sm_60"}, "processor: sm_60"),
        ({"weights_digest": "f" * 64}, "weights_digest"),
    ],
)
def test_another_machines_code_is_left_alone_with_one_line(
    model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, change: dict[str, str], said: str
) -> None:
    _ship(tmp_path, {**compile_key(model), **change, "shapes": SHAPES})
    with caplog.at_level(logging.WARNING):
        assert with_compiled_unet(model, tmp_path) is model
    (record,) = caplog.records
    assert said in record.message


def test_a_broken_package_means_the_plain_unet(
    model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _ship(tmp_path, {**compile_key(model), "shapes": SHAPES})
    (tmp_path / FOLDER / PACKAGE).write_bytes(b"not a package")
    with caplog.at_level(logging.WARNING):
        assert with_compiled_unet(model, tmp_path) is model
    assert "cannot be loaded" in caplog.text


def test_an_archive_without_compiled_code_is_served_as_it_is(model: Any, tmp_path: Path) -> None:
    assert with_compiled_unet(model, tmp_path) is model


def _ship(root: Path, key: dict[str, Any]) -> None:
    (root / FOLDER).mkdir()
    (root / FOLDER / KEY).write_text(json.dumps(key))
