"""Models and options that `marquee build` refuses: the message, and that no file is left behind."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from archive_command import ROOT, edit_json, marquee
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from pipeline.archive.build import BuildConfig, build
from pipeline.archive.replacing import replacing
from pipeline.errors import MarqueeError
from pipeline.progress import Silent

UNET = "unet/diffusion_pytorch_model.safetensors"
BIG_BYTES = 3 << 30


def refusal(folder: Path | str, out: Path, config: Path | None = None) -> MarqueeError:
    with pytest.raises(MarqueeError) as caught:
        build(BuildConfig(model=str(folder), out=out, config=config), Silent())
    assert not out.exists()
    return caught.value


def test_everything_wrong_is_listed_at_once(model_folder: Path, tmp_path: Path) -> None:
    edit_json(model_folder / "model_index.json", _class_name="StableDiffusionXLPipeline")
    (model_folder / "scheduler/scheduler_config.json").unlink()
    (model_folder / "vae/config.json").write_text("{")
    whole = (model_folder / UNET).read_bytes()
    (model_folder / UNET).write_bytes(whole[:-1000])
    error = str(refusal(model_folder, tmp_path / "model.mar"))
    assert "'StableDiffusionXLPipeline'" in error
    assert "scheduler/scheduler_config.json is missing" in error
    assert "vae/config.json is not JSON" in error
    assert f"{UNET}: it has {len(whole) - 1000} bytes, and its header says {len(whole)}" in error


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no safetensors header"),
        (b"\x80\x02}q\x00." * 10, "no safetensors header"),
        ((1000).to_bytes(8, "little") + b"{}", "cut off in its header"),
        ((2).to_bytes(8, "little") + b"[]", "damaged"),
        (
            (60).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}'.ljust(60),
            "shape",
        ),
    ],
)
def test_what_is_no_safetensors_file_is_named(
    model_folder: Path, tmp_path: Path, content: bytes, reason: str
) -> None:
    (model_folder / UNET).write_bytes(content)
    error = str(refusal(model_folder, tmp_path / "model.mar"))
    assert f"{UNET}: " in error
    assert reason in error


def test_missing_shard_is_named(model_folder: Path, tmp_path: Path) -> None:
    (model_folder / UNET).rename(model_folder / "unet/other.safetensors")
    (model_folder / f"{UNET}.index.json").write_text('{"weight_map": {"a": "gone-1.safetensors"}}')
    assert "unet/gone-1.safetensors is missing" in str(refusal(model_folder, tmp_path / "model.mar"))


def test_shard_outside_the_folder_is_refused(model_folder: Path, tmp_path: Path) -> None:
    (model_folder / UNET).rename(model_folder / "unet/other.safetensors")
    (model_folder / f"{UNET}.index.json").write_text('{"weight_map": {"a": "../../secret"}}')
    assert "unet/../../secret is not a file in the model's folder" in str(
        refusal(model_folder, tmp_path / "model.mar")
    )


def test_pickles_are_refused_with_the_command_that_converts_them(model_folder: Path, tmp_path: Path) -> None:
    before = load_file(model_folder / UNET)
    text = load_file(model_folder / "text_encoder/model.safetensors")
    (model_folder / UNET).unlink()
    (model_folder / "text_encoder/model.safetensors").unlink()
    torch.save(before, model_folder / "unet/diffusion_pytorch_model.bin")
    torch.save(text, model_folder / "text_encoder/pytorch_model.bin")
    error = refusal(model_folder, tmp_path / "model.mar")
    assert "only unet/diffusion_pytorch_model.bin" in str(error)
    assert "only text_encoder/pytorch_model.bin" in str(error)
    command = shlex.split(str(error.cure).split("   (")[0])
    subprocess.run(command, check=True, timeout=120, cwd=tmp_path)
    build(BuildConfig(model=str(model_folder), out=tmp_path / "model.mar"), Silent())
    after = load_file(model_folder / UNET)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (model_folder / UNET).stat().st_mode & 0o777 == 0o644


def test_shards_of_pickles_are_converted_with_their_list(model_folder: Path, tmp_path: Path) -> None:
    stems = {"unet/diffusion_pytorch_model": "unet/diffusion_pytorch_model"}
    stems["text_encoder/model"] = "text_encoder/pytorch_model"
    before = {stem: load_file(model_folder / f"{stem}.safetensors") for stem in stems}
    for stem, pickled in stems.items():
        (model_folder / f"{stem}.safetensors").unlink()
        weight_map = {}
        for number, part in enumerate((sorted(before[stem])[::2], sorted(before[stem])[1::2]), 1):
            shard = model_folder / f"{pickled}-{number:05}-of-00002.bin"
            torch.save({name: before[stem][name] for name in part}, shard)
            weight_map.update(dict.fromkeys(part, shard.name))
        listed = {"metadata": {"total_size": 1}, "weight_map": weight_map}
        (model_folder / f"{pickled}.bin.index.json").write_text(json.dumps(listed))
    done = marquee("convert", model_folder)
    assert done.returncode == 0, done.stderr
    assert str(model_folder / "text_encoder/model.safetensors.index.json") in done.stdout.splitlines()
    build(BuildConfig(model=str(model_folder), out=tmp_path / "model.mar"), Silent())
    unet = UNet2DConditionModel.from_pretrained(model_folder / "unet").state_dict()
    assert all(torch.equal(unet[name], tensor) for name, tensor in before[UNET[:-12]].items())


def test_conversion_runs_no_code_of_a_pickle(model_folder: Path, tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    (model_folder / UNET).unlink()
    (model_folder / "unet/diffusion_pytorch_model.bin").write_bytes(pickle.dumps({"a": Evil()}))
    done = marquee("convert", model_folder)
    assert done.returncode == 1
    assert "holds more than tensors" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_unknown_setting_fails_at_build(model_folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("marquee: {defaults: {stepz: 3}}")
    assert "'stepz'" in str(refusal(model_folder, tmp_path / "model.mar", config))
    config.write_text("batchSizes: 4")
    assert "'batchSizes'" in str(refusal(model_folder, tmp_path / "model.mar", config))
    config.write_text("a: [")
    assert "not YAML" in str(refusal(model_folder, tmp_path / "model.mar", config))


def test_settings_of_the_model_folder_are_used_and_a_given_file_wins(
    model_folder: Path, tmp_path: Path
) -> None:
    import zipfile

    (model_folder / "model-config.yaml").write_text("batchSize: 3  # mine\n")
    (tmp_path / "other.yaml").write_text("batchSize: 5\n")
    for config, expected in ((None, b"batchSize: 3  # mine\n"), (tmp_path / "other.yaml", b"batchSize: 5\n")):
        built = build(BuildConfig(str(model_folder), tmp_path / "model.mar", config), Silent())
        assert zipfile.ZipFile(built.path).read("model-config.yaml") == expected


def test_a_folder_as_out_is_one_line_before_any_work(tmp_path: Path) -> None:
    for out in (str(tmp_path), ""):
        done = marquee("build", "--model", "no such model", "--out", out)
        assert done.returncode == 1
        shown = out or "."
        assert f"error: the archive cannot be written to {shown!r}: that is a folder" in done.stderr
        assert f"cure: name a file: --out {Path(out) / 'model.mar'}" in done.stderr


def test_too_small_a_disk_is_one_line_before_any_work(tmp_path: Path) -> None:
    message = r"GB free; the archive needs 1125899\.9 GB"
    with pytest.raises(MarqueeError, match=message), replacing(tmp_path / "model.mar", 1 << 50):
        pytest.fail("no work may start")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_build_leaves_the_old_archive_and_nothing_else(
    model_folder: Path, tmp_path: Path, how: signal.Signals
) -> None:
    header = b'{"a":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (BIG_BYTES, BIG_BYTES)
    with open(model_folder / UNET, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + BIG_BYTES)
    store = tmp_path / "store"
    store.mkdir()
    (store / "model.mar").write_bytes(b"the old one")
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "build", "--model", model_folder, "--out", store / "model.mar"],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        # A shell that runs the tests in the background ignores SIGINT, and children inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not _writes_into(process.pid, store) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None
    process.send_signal(how)
    assert process.wait(60) != 0
    assert [path.name for path in store.iterdir()] == ["model.mar"]
    assert (store / "model.mar").read_bytes() == b"the old one"


def _writes_into(pid: int, folder: Path) -> bool:
    try:
        return any(str(folder) in os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def test_a_name_that_is_neither_folder_nor_hub_id_is_named(tmp_path: Path) -> None:
    assert re.search("neither a folder nor a hub id", str(refusal("no such thing", tmp_path / "model.mar")))
