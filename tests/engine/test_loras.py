"""LoRAs by row: as diffusers and peft draw with them (oracles/loras.safetensors), and nobody else notices."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from driving import draw, nearly_equal, pixels, reason
from lora_files import ASKED, asked, checksum, make_loras, oracle_jobs, save, unet_inputs
from safetensors.torch import load_file
from tiny import as_model, draw_plainly, layers, make_job, make_pipeline

from handler.contract.settings import load_settings, parse_settings
from handler.engine.accelerate.compiled import CompiledUNet
from handler.engine.accelerate.fused import fuse_projections
from handler.engine.accelerate.graphs import GraphedUNet
from handler.engine.engine import Engine
from handler.engine.loras import RowLoras, UNetRows
from handler.engine.memory.footprint import measure_footprint
from handler.engine.memory.plan import MemoryPlan
from handler.engine.opening import open_engine
from handler.engine.options import EngineOptions
from handler.model.digest import DigestError
from handler.model.loras import load_loras
from handler.model.model import Model
from handler.model.weights import ModelError
from pipeline.archive.build import BuildConfig, build
from pipeline.archive.loras.option import LoraFile
from pipeline.progress import Silent

TOLERANCE = 1e-5
ORACLE = Path(__file__).with_name("oracles") / "loras.safetensors"


@pytest.fixture(scope="module")
def oracle(pipeline: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    found = load_file(ORACLE)
    made_with = float(found["checksum"])
    assert made_with == pytest.approx(float(checksum(pipeline)), rel=1e-9), (
        "the tiny pipeline has changed: run oracles/make_lora_oracle.py"
    )
    return found


@pytest.fixture(scope="module")
def unpacked(pipeline: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The LoRAs of the oracle, packed by ``build`` and unpacked as TorchServe unpacks them."""
    import zipfile

    root = tmp_path_factory.mktemp("loras")
    pipeline.save_pretrained(root / "model")
    files = [
        LoraFile(name, save(root / f"{name}.safetensors", tensors))
        for name, tensors in make_loras(pipeline).items()
    ]
    built = build(BuildConfig(str(root / "model"), root / "model.mar", loras=tuple(files)), Silent())
    with zipfile.ZipFile(built.path) as archive:
        archive.extractall(root / "unpacked")
    return root / "unpacked"


def with_loras(model: Model, unpacked: Path) -> Model:
    settings = parse_settings({"marquee": {"loras": {"a": {}, "b": {"default_weight": 0.5}}}})
    parts = {"unet": model.unet, "text_encoder": model.text_encoder}
    return replace(model, loras=load_loras(unpacked, settings, parts))


@pytest.fixture(scope="module")
def lora_model(model: Model, unpacked: Path) -> Model:
    return with_loras(model, unpacked)


def predict(unet: Any, *tensors: Any) -> torch.Tensor:
    with torch.inference_mode():
        predicted: torch.Tensor = unet(*tensors[:2], encoder_hidden_states=tensors[2], return_dict=False)[0]
        return predicted


ROWS = [asked(weights) for weights in ASKED]


def test_rows_of_one_call_are_those_of_peft(
    lora_model: Model, pipeline: StableDiffusionPipeline, oracle: Mapping[str, torch.Tensor]
) -> None:
    drawn = UNetRows(lora_model).call(predict, unet_inputs(pipeline), ROWS, None)
    assert float((drawn - oracle["unet"]).abs().max()) <= TOLERANCE
    plain = predict(lora_model.unet, *unet_inputs(pipeline))
    assert torch.equal(plain[2:3], drawn[2:3])
    assert all(float((plain[row] - drawn[row]).abs().max()) > 0.1 for row in (0, 1, 3))


def test_texts_of_one_call_are_those_of_peft(lora_model: Model, oracle: Mapping[str, torch.Tensor]) -> None:
    loras = RowLoras(
        lora_model.text_encoder, {name: lora.text_encoder for name, lora in lora_model.loras.items()}
    )
    with torch.inference_mode(), loras.added(ROWS):
        encoded = layers(lora_model.text_encoder)(torch.arange(64).reshape(4, 16))[0]
    assert float((encoded - oracle["text"]).abs().max()) <= TOLERANCE


def test_fused_projections_take_loras(
    unpacked: Path, tmp_path: Path, oracle: Mapping[str, torch.Tensor]
) -> None:
    own = make_pipeline(tmp_path)
    model = with_loras(as_model(own), unpacked)
    fuse_projections(model)
    drawn = UNetRows(model).call(predict, unet_inputs(own), ROWS, None)
    assert float((drawn - oracle["unet"]).abs().max()) <= TOLERANCE


@pytest.mark.parametrize("kind", ["compiled", "graphs"])
def test_accelerated_code_gets_the_rows_without_loras(
    kind: str, lora_model: Model, pipeline: StableDiffusionPipeline, oracle: Mapping[str, torch.Tensor]
) -> None:
    """The others go through the plain UNet, in one call."""
    seen: list[int] = []

    def code(*rows: torch.Tensor) -> torch.Tensor:
        seen.append(len(rows[0]))
        return predict(lora_model.unet, *rows)

    inputs = unet_inputs(pipeline)
    unet = (
        CompiledUNet(lora_model.unet, code, {"rows": 4, "height": 8, "width": 8})
        if kind == "compiled"
        else GraphedUNet(lora_model.unet, inputs, [1, 4], lambda _: code)
    )
    drawn = UNetRows(replace(lora_model, unet=unet)).call(predict, inputs, ROWS, None)
    assert seen == [1]
    assert float((drawn - oracle["unet"]).abs().max()) <= TOLERANCE


@pytest.mark.parametrize("options", [{}, {"vectorised": True}, {"strict": True}])
def test_pictures_in_company_are_those_of_peft(
    options: dict[str, bool], lora_model: Model, plan: MemoryPlan, oracle: Mapping[str, torch.Tensor]
) -> None:
    """Texts, negative texts and guidance included."""
    outcomes = draw(Engine(lora_model, EngineOptions(max_live=4, **options), plan), oracle_jobs(make_job))
    wrong = [
        row for row, got in enumerate(outcomes) if not nearly_equal(pixels(got), oracle[f"picture.{row}"])
    ]
    assert wrong == []


def test_nobody_asking_is_the_plain_pipeline_to_the_bit_without_any_hook(
    lora_model: Model, pipeline: StableDiffusionPipeline, plan: MemoryPlan
) -> None:
    hooked: list[str] = []
    unet = layers(lora_model.unet)

    def watch(*_: object) -> None:
        hooked.extend(path for path, module in unet.named_modules() if path and module._forward_hooks)

    jobs = [make_job("a cat"), make_job("a cat", loras=asked({"a": 0.0}))]
    handle = unet.register_forward_pre_hook(watch)
    try:
        for job in jobs:
            [outcome] = draw(Engine(lora_model, EngineOptions(), plan), [job])
            assert torch.equal(pixels(outcome), draw_plainly(pipeline, replace(job, loras=())))
        assert hooked == []
        draw(Engine(lora_model, EngineOptions(), plan), [make_job("a cat", loras=asked({"a": 1.0}))])
        assert hooked  # so the watch can see them
    finally:
        handle.remove()
    assert not any(module._forward_hooks for module in unet.modules())


def test_strict_pictures_have_the_same_bits_beside_any_loras(lora_model: Model, plan: MemoryPlan) -> None:
    jobs = [
        make_job("a cat", loras=asked({"a": 0.5})),
        make_job("a dog", seed=8),
        make_job("x", seed=9, loras=asked({"b": 1.5, "a": 1.0})),
    ]
    options = EngineOptions(max_live=4, strict=True)
    together = draw(Engine(lora_model, options, plan), jobs)
    for job, outcome in zip(jobs, together, strict=True):
        [alone] = draw(Engine(lora_model, options, plan), [job])
        assert torch.equal(pixels(outcome), pixels(alone))


def test_a_lora_that_overflows_harms_its_own_rows_only(
    lora_model: Model, pipeline: StableDiffusionPipeline
) -> None:
    loud = asked({"a": 1e30})
    drawn = UNetRows(lora_model).call(predict, unet_inputs(pipeline), [loud, (), loud, ()], 4)
    plain = predict(lora_model.unet, *unet_inputs(pipeline))
    assert torch.equal(drawn[1::2], plain[1::2])
    assert not drawn[0].isfinite().all()


def test_texts_with_different_loras_are_kept_apart_and_found_again(
    lora_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from handler.engine.prompts import PromptEncoder

    encoder = PromptEncoder(lora_model, cache_size=8, one_by_one=False)
    jobs = [make_job("a cat", loras=asked(weights)) for weights in ASKED]
    states = [prompts.positive for prompts in encoder.encode(jobs, alone=False)]
    assert all(not torch.equal(one, other) for one in states for other in states if one is not other)
    monkeypatch.setattr(encoder, "_run", None)  # a second run would fail
    again = [prompts.positive for prompts in encoder.encode(jobs, alone=False)]
    assert all(torch.equal(one, other) for one, other in zip(states, again, strict=True))


def test_an_unknown_lora_is_a_400_and_its_neighbours_are_drawn(lora_model: Model, plan: MemoryPlan) -> None:
    engine = Engine(lora_model, EngineOptions(), plan)
    wrong, right = make_job("a", loras=asked({"ink": 1.0})), make_job("a", loras=asked({"a": 1.0}))
    refused = engine.check(wrong)
    assert refused is not None
    assert (refused.status, refused.message) == (
        400,
        "loras: this archive has no LoRA 'ink'; it has a, b",
    )
    assert engine.check(right) is None
    first, second = draw(engine, [wrong, right])
    assert reason(first) == "invalid_request"
    pixels(second)


def test_loras_are_in_the_memory_plan(model: Model, lora_model: Model) -> None:
    without, within = (measure_footprint(one, 64, 64, 9).unet_row_bytes for one in (model, lora_model))
    assert within > without


def test_an_opened_archive_describes_its_loras(unpacked: Path) -> None:
    settings = load_settings(unpacked / "model-config.yaml")
    opened = open_engine(unpacked, replace(settings, max_batch=1))
    digest = hashlib.sha256((unpacked / "loras" / "a.safetensors").read_bytes()).hexdigest()
    loras = layers(opened.description)["loras"]
    assert loras["a"] == {"sha256": digest, "default_weight": 1.0}
    assert sorted(loras) == ["a", "b"]
    assert opened.model.loras["a"].digest == digest


def test_a_lora_that_is_not_the_built_one_is_refused(model: Model, unpacked: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(unpacked / "loras", root / "loras")
    shutil.copytree(unpacked / "MAR-INF", root / "MAR-INF")
    save(root / "loras" / "a.safetensors", {"x": torch.zeros(1)})
    with pytest.raises(DigestError, match=r"loras/a\.safetensors"):
        with_loras(model, root)
    shutil.rmtree(root / "MAR-INF")
    with pytest.raises(ModelError, match=r"holds \.x, which is no part of a LoRA"):
        with_loras(model, root)
    (root / "loras" / "a.safetensors").unlink()
    with pytest.raises(ModelError, match=r"loras/a\.safetensors: the archive lacks it"):
        with_loras(model, root)
