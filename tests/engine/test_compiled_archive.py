"""An archive with a compiled UNet: built, inspected, drawn with, served, and moved to another torch."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from driving import draw, nearly_equal, pixels
from kept_archive import kept_archive
from narrow import write_narrow_pipeline
from PIL import Image
from tiny import layers

from handler.contract.job import Job, Picture
from handler.contract.schedulers import SCHEDULERS
from handler.contract.settings import Settings, load_settings
from handler.engine.accelerate.compiled import FOLDER, KEY, LIBRARY, CompiledUNet, with_compiled_unet
from handler.engine.engine import Engine
from handler.engine.profile import choose_profile
from handler.engine.start import start_engine
from handler.model.load import load_model
from handler.model.model import Model
from pipeline.archive.build import BuildConfig, build
from pipeline.client import Client
from pipeline.progress import Silent
from pipeline.serving.settings import ServeOptions
from pipeline.serving.torchserve import serve

ROOT = Path(__file__).parents[2]
LANES = 2
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def compiled_mar(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive compiled for two pictures with guidance, kept in build/ from one run to the next.

    `make soak` compiles the embedded model (four minutes); else it is the smallest UNet of the same blocks.
    """
    config = (ROOT / "model_artifacts" / "model-config.yaml").read_text()
    config = re.sub(r"(?m)^  max_batch:.*$", "  max_batch: 2", config)
    whole = bool(request.config.getoption("soak"))

    def compile_into(folder: Path) -> None:
        (folder / "c.yaml").write_text(config)
        model = ROOT / "model_artifacts" / "shapes" if whole else write_narrow_pipeline(folder)
        container, mar = "marquee", folder / "model.mar"
        build(BuildConfig(str(model), mar, folder / "c.yaml", container=container, compiled=True), Silent())

    name = "whole" if whole else "narrow"
    return kept_archive(name, config, compile_into, tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module")
def unpacked(compiled_mar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(compiled_mar) as archive:
        archive.extractall(root)
    return root


@pytest.fixture(scope="module")
def settings(unpacked: Path) -> Settings:
    return load_settings(unpacked / "model-config.yaml")


@pytest.fixture(scope="module")
def plain_model(unpacked: Path, settings: Settings) -> Model:
    return load_model(unpacked / "model", settings)


@pytest.fixture(scope="module")
def compiled_model(plain_model: Model, unpacked: Path) -> Iterator[Model]:
    """As a worker with two cores loads it."""
    torch.set_num_threads(LANES)
    yield with_compiled_unet(plain_model, unpacked)
    torch.set_num_threads(1)


def _engine(model: Model, settings: Settings) -> Engine:
    return start_engine(model, settings, choose_profile(model, settings)).engine


def _jobs(settings: Settings) -> list[Job]:
    """Every scheduler, with and without guidance, of 3 to 9 steps, all of the size that was compiled."""
    defaults = dataclasses.asdict(settings.defaults)
    return [
        Job(
            **defaults
            | {
                "prompt": f"a red circle on a {('blue', 'green', 'white')[number % 3]} background",
                "seed": number,
                "num_inference_steps": 3 + number,
                "guidance_scale": 1.0 + 2 * (number % 2),
                "scheduler": name,
            }
        )
        for number, name in enumerate(SCHEDULERS)
    ]


def test_the_compiled_unet_draws_the_eager_ones_pictures(
    plain_model: Model, compiled_model: Model, settings: Settings
) -> None:
    jobs = _jobs(settings)
    engine = _engine(compiled_model, settings)
    eager_calls: list[int] = []
    hook = layers(plain_model.unet).register_forward_hook(lambda *_: eager_calls.append(1))
    drawn = draw(engine, jobs)
    assert eager_calls == []
    wanted = draw(_engine(plain_model, settings), jobs)
    hook.remove()
    assert len(eager_calls) >= max(job.num_inference_steps for job in jobs)
    wrong = [
        job.scheduler
        for job, got, want in zip(jobs, drawn, wanted, strict=True)
        if not nearly_equal(pixels(got), pixels(want))
    ]
    assert wrong == []


def test_another_size_is_drawn_by_the_eager_unet_beside_it(
    plain_model: Model, compiled_model: Model, settings: Settings
) -> None:
    one, other, *_ = _jobs(settings)
    jobs = [one, dataclasses.replace(other, width=96)]
    drawn = draw(_engine(compiled_model, settings), jobs)
    for got, want in zip(drawn, draw(_engine(plain_model, settings), jobs), strict=True):
        assert nearly_equal(pixels(got), pixels(want))


def test_strict_pictures_of_compiled_code_are_the_same_bits_in_any_company(
    compiled_model: Model, settings: Settings
) -> None:
    strict = dataclasses.replace(settings, strict=True)
    jobs = _jobs(settings)
    alone = [pixels(draw(_engine(compiled_model, strict), [job])[0]) for job in jobs]
    for order in (jobs, jobs[::-1]):
        together = dict(zip(order, draw(_engine(compiled_model, strict), order), strict=True))
        for job, bits in zip(jobs, alone, strict=True):
            assert torch.equal(pixels(together[job]), bits), job


def test_code_of_another_torch_is_left_alone_with_one_line(
    plain_model: Model, unpacked: Path, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(unpacked / FOLDER, tmp_path / FOLDER)
    key = tmp_path / FOLDER / KEY
    key.write_text(json.dumps(json.loads(key.read_text()) | {"torch": "2.0.0"}))
    with caplog.at_level(logging.INFO):
        model = with_compiled_unet(plain_model, tmp_path)
    (record,) = caplog.records
    assert f"torch: 2.0.0, here {torch.__version__}" in record.message
    assert choose_profile(model, settings).name == "cpu eager"
    assert not isinstance(model.unet, CompiledUNet)


# oneDNN prefers one layout of the weights for every number of rows only where it has AVX-512; packing.py
# lays them out for the example's two rows (docs/engine.md).
ROWS = 3 if "AVX512" in torch.backends.cpu.get_cpu_capability() else 2
CALLED_WITH_ROWS = """
import sys, torch
from pathlib import Path
from handler.engine.accelerate.native import NativeCode
code = NativeCode(Path(sys.argv[1]), callers=1)
rows, side, tokens, width = map(int, sys.argv[2:])
with torch.inference_mode():
    code(torch.zeros(rows, 4, side, side), torch.zeros(rows), torch.zeros(rows, tokens, width))
"""


def test_no_weights_are_laid_out_anew_in_a_call(
    unpacked: Path, settings: Settings, plain_model: Model
) -> None:
    side = settings.defaults.width // 2 ** (len(plain_model.vae.config.block_out_channels) - 1)
    tokens = plain_model.text_encoder.config.max_position_embeddings
    numbers = [str(n) for n in (ROWS, side, tokens, plain_model.unet.config.cross_attention_dim)]
    done = subprocess.run(
        [sys.executable, "-c", CALLED_WITH_ROWS, str(unpacked / FOLDER / LIBRARY), *numbers],
        cwd=ROOT,
        env={**os.environ, "ONEDNN_VERBOSE": "profile_exec"},
        capture_output=True,
        text=True,
        check=True,
    )
    primitives = [line.split(",")[5] for line in done.stdout.splitlines() if ",primitive,exec," in line]
    assert "convolution" in primitives
    assert "reorder" not in primitives


def test_inspect_accepts_the_archive(compiled_mar: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "inspect", str(compiled_mar)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "compiled/unet.so" in done.stdout


@pytest.mark.torchserve
def test_torchserve_draws_with_the_compiled_unet_and_says_so(
    compiled_mar: Path, plain_model: Model, settings: Settings
) -> None:
    job = _jobs(settings)[1]
    wanted = draw(_engine(plain_model, settings), [job])[0]
    ask = {
        name: getattr(job, name)
        for name in ("prompt", "seed", "num_inference_steps", "guidance_scale", "scheduler")
    }
    with serve(compiled_mar, ServeOptions(threads=LANES)) as server, Client(server.url) as client:
        described = client.describe()["engine"]
        (prediction,) = client.predict([{**ask, "output_format": "png"}])
    assert (described["name"], described["lanes"]) == ("cpu compiled", LANES)
    served = Picture(Image.open(io.BytesIO(prediction.data)), {})
    assert nearly_equal(pixels(served), pixels(wanted))
