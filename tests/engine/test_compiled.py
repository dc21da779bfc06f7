"""Compiled code is used only where its key fits; the plain UNet is used everywhere else."""

from __future__ import annotations

import _ctypes
import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from handler.engine.accelerate.compiled import (
    FOLDER,
    KEY,
    LIBRARY,
    CompiledUNet,
    compile_key,
    with_compiled_unet,
)
from handler.engine.accelerate.lanes import Lanes
from handler.model.digest import SUMS, DigestError

SHAPES = {"rows": 4, "height": 8, "width": 8}
ORDINARY_LIBRARY = Path(_ctypes.__file__)


class Halves:
    """Stands where compiled code stands: tells its calls apart from the UNet's by its result."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, sample: torch.Tensor, timestep: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        assert timestep.shape == (len(sample),)
        self.calls.append(len(sample))
        return sample / 2 + (timestep + texts.mean(dim=(1, 2))).view(-1, 1, 1, 1)


def _call(unet: Any, rows: int, side: int, model: Any) -> torch.Tensor:
    config = model.unet.config
    texts = torch.zeros(rows, 4, config.cross_attention_dim)
    with torch.inference_mode():
        predicted: torch.Tensor = unet(
            torch.ones(rows, 4, side, side), torch.zeros(rows), encoder_hidden_states=texts
        )[0]
        return predicted


def test_only_the_shapes_it_was_compiled_for_reach_the_compiled_code(model: Any) -> None:
    unet = CompiledUNet(model.unet, Halves(), SHAPES)
    assert torch.equal(_call(unet, 4, 8, model), torch.full((4, 4, 8, 8), 0.5))
    assert not torch.equal(_call(unet, 5, 8, model), torch.full((5, 4, 8, 8), 0.5))
    assert not torch.equal(_call(unet, 2, 16, model), torch.full((2, 4, 16, 16), 0.5))


def test_one_timestep_may_stand_for_all_rows(model: Any) -> None:
    unet = CompiledUNet(model.unet, Halves(), SHAPES)
    texts = torch.zeros(3, 4, model.unet.config.cross_attention_dim)
    assert unet(torch.ones(3, 4, 8, 8), 1, encoder_hidden_states=texts)[0].shape == (3, 4, 8, 8)


@pytest.mark.parametrize(("rows", "calls"), [(4, [2, 2]), (3, [1, 2]), (2, [1, 1]), (1, [1])])
def test_lanes_share_the_rows_and_bring_them_back_in_order(
    model: Any, lanes: Lanes, rows: int, calls: list[int]
) -> None:
    """Each row with its own timestep and its own text."""
    code = Halves()
    number = torch.arange(rows, dtype=torch.float32)
    sample = number.view(-1, 1, 1, 1).expand(rows, 4, 8, 8)
    texts = (100 * number).view(-1, 1, 1).expand(rows, 4, model.unet.config.cross_attention_dim)
    unet = CompiledUNet(model.unet, code, SHAPES, lanes)
    (predicted,) = unet(sample, 10 * number, encoder_hidden_states=texts)
    assert sorted(code.calls) == calls
    wanted = (110.5 * number).view(-1, 1, 1, 1).expand(rows, 4, 8, 8)
    assert torch.equal(predicted, wanted)


@pytest.mark.parametrize(("lanes_of", "rows", "calls"), [(3, 8, [4, 4]), (3, 9, [3, 3, 3]), (2, 7, [7])])
def test_strict_calls_all_have_the_same_rows(model: Any, lanes_of: int, rows: int, calls: list[int]) -> None:
    code = Halves()
    threads = torch.get_num_threads()
    shared = CompiledUNet(model.unet, code, {**SHAPES, "rows": 9}, Lanes(lanes_of))
    _call(shared.with_even_parts(), rows, 8, model)
    torch.set_num_threads(threads)
    assert sorted(code.calls) == calls


@pytest.mark.parametrize(
    "key",
    [
        "{",
        "[]",
        "{}",
        '{"shapes": 8}',
        '{"shapes": {"rows": "many", "height": 8, "width": 8}}',
        '{"shapes": {"rows": 8}}',
    ],
)
def test_a_key_that_cannot_be_read_means_the_plain_unet_with_one_line(
    model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / KEY).write_text(key)
    with caplog.at_level(logging.WARNING):
        assert with_compiled_unet(model, tmp_path) is model
    (record,) = caplog.records
    assert "running eager" in record.message


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


def test_the_key_names_the_processors_instruction_sets(model: Any) -> None:
    """The code is compiled with -march=native: elsewhere it might be an illegal instruction."""
    has = {word for line in Path("/proc/cpuinfo").read_text().splitlines() for word in line.split()}
    has &= {"aes", "avx", "avx2", "avx512_bf16", "avx512_fp16", "bmi2", "sse4_1"}
    assert has <= set(str(compile_key(model)["processor"]).split())


@pytest.mark.parametrize("content", ["nothing", "text", "other code"])
def test_a_broken_library_means_the_plain_unet_on_all_cores(
    model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str, two_threads: None
) -> None:
    _ship(tmp_path, {**compile_key(model), "shapes": SHAPES})
    library = tmp_path / FOLDER / LIBRARY
    if content == "text":
        library.write_bytes(b"not a library")
    elif content == "other code":
        shutil.copy(str(ORDINARY_LIBRARY), library)
    with caplog.at_level(logging.WARNING):
        assert with_compiled_unet(model, tmp_path) is model
    (record,) = caplog.records
    assert "cannot be loaded" in record.message
    assert torch.get_num_threads() == 2


def test_code_that_is_not_the_archives_own_is_never_run(model: Any, tmp_path: Path) -> None:
    _ship(tmp_path, {**compile_key(model), "shapes": SHAPES})
    (tmp_path / FOLDER / LIBRARY).write_bytes(b"put here later")
    key = hashlib.sha256((tmp_path / FOLDER / KEY).read_bytes()).hexdigest()
    (tmp_path / SUMS).parent.mkdir()
    (tmp_path / SUMS).write_text(f"{key}  {FOLDER}/{KEY}\n{'0' * 64}  {FOLDER}/{LIBRARY}\n")
    with pytest.raises(DigestError, match=LIBRARY):
        with_compiled_unet(model, tmp_path)


def test_an_archive_without_compiled_code_is_served_as_it_is(model: Any, tmp_path: Path) -> None:
    assert with_compiled_unet(model, tmp_path) is model


def _ship(root: Path, key: dict[str, Any]) -> None:
    (root / FOLDER).mkdir()
    (root / FOLDER / KEY).write_text(json.dumps(key))
