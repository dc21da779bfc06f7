"""dtype: auto on a CPU: bfloat16 where its products are measured to be fast and the model is wide."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from handler.contract.settings import Settings
from handler.model.device import choose_dtype_by_probe
from handler.model.dtype_probe import DtypeProbe, cache_file, measure_rates, probe_dtypes

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def kept() -> dict[str, dict[str, float]]:
    file = cache_file()
    assert file is not None
    rates: dict[str, dict[str, float]] = json.loads(file.read_text())
    return rates


@pytest.mark.parametrize(
    ("width", "float32", "bfloat16", "chosen"),
    [
        (1280, 100.0, 290.0, torch.bfloat16),
        (640, 100.0, 150.0, torch.bfloat16),
        (640, 100.0, 149.0, torch.float32),
        (1280, 100.0, 50.0, torch.float32),
        (639, 100.0, 660.0, torch.float32),
    ],
)
def test_the_rates_and_the_width_decide(
    width: int, float32: float, bfloat16: float, chosen: torch.dtype
) -> None:
    assert DtypeProbe(width, float32, bfloat16).dtype is chosen


def test_the_rates_are_really_measured() -> None:
    rates = measure_rates(640)
    assert rates.float32_gflops > 0
    assert rates.bfloat16_gflops > 0


def test_what_was_measured_once_is_read_from_the_cache() -> None:
    first = probe_dtypes(640)
    assert first is not None
    ((key, rates),) = kept().items()
    assert torch.__version__ in key
    file = cache_file()
    assert file is not None
    file.write_text(json.dumps({key: {**rates, "bfloat16_gflops": 12345.0}}))
    assert probe_dtypes(640) == DtypeProbe(640, first.float32_gflops, 12345.0)
    assert list(file.parent.iterdir()) == [file], "no temporary file is left"


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"', '{"KEY": 3}', '{"KEY": {"float32_gflops": NaN}}'])
def test_a_spoilt_cache_is_measured_over(text: str) -> None:
    probe_dtypes(640)
    (key,) = kept()
    file = cache_file()
    assert file is not None
    file.write_text(text.replace("KEY", key))
    assert probe_dtypes(640) is not None
    assert kept()[key]["float32_gflops"] > 0


def test_a_cache_that_cannot_be_written_is_no_error(home: Path) -> None:
    (home / ".cache").write_text("a file where the folder would be")
    assert probe_dtypes(640) is not None


@pytest.mark.parametrize("settings", [Settings(strict=True), Settings(dtype="float32")])
def test_nothing_is_probed_in_strict_mode_or_for_a_dtype_that_is_named(
    settings: Settings, home: Path
) -> None:
    assert choose_dtype_by_probe(settings, CPU, 1280) is None
    assert not (home / ".cache").exists()


def test_a_narrow_model_stays_float32_unprobed(home: Path) -> None:
    assert choose_dtype_by_probe(Settings(), CPU, 256) is None
    assert not (home / ".cache").exists()
    assert choose_dtype_by_probe(Settings(), CPU, 640) is not None
