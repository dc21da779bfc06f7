"""`marquee build --model owner/name` against a hub on loopback, through the real hub client."""

from __future__ import annotations

import ast
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from archive_command import marquee
from huggingface_hub.constants import DOWNLOAD_CHUNK_SIZE
from loopback_hub import COMMIT, REPOSITORY, TAG, Hub, loopback_hub
from safetensors.torch import save_file

import pipeline.archive.hub
from pipeline.archive.build import BuildConfig, build
from pipeline.progress import Silent

UNET = "unet/diffusion_pytorch_model.safetensors"
HALF = "unet/diffusion_pytorch_model.fp16.safetensors"
# https://huggingface.co/docs/huggingface_hub/package_reference/overview
PUBLIC = {"huggingface_hub", *(f"huggingface_hub.{name}" for name in ("utils", "errors", "constants"))}

BIG_BYTES = 5 * DOWNLOAD_CHUNK_SIZE // 2


@pytest.fixture
def hub(model_folder: Path) -> Iterator[Hub]:
    """The repository as tutorials find it: with everything that does not serve beside what does."""
    (model_folder / "safety_checker").mkdir()
    safety, pickle = "safety_checker/model.safetensors", "unet/diffusion_pytorch_model.bin"
    for name in (HALF, safety, pickle, "v1.ckpt", "README.md"):
        shutil.copyfile(model_folder / UNET, model_folder / name)
    with loopback_hub(model_folder) as running:
        yield running


@pytest.fixture
def big_file(hub: Hub) -> str:
    """A file of more than two of the client's chunks, which it keeps as they are complete."""
    save_file({"weight": torch.zeros(BIG_BYTES, dtype=torch.uint8)}, hub.folder / HALF)
    return HALF


def build_from_hub(
    hub: Hub, tmp_path: Path, *options: str, model: str = REPOSITORY
) -> subprocess.CompletedProcess[str]:
    return marquee(
        "build",
        "--model",
        model,
        "--out",
        tmp_path / "model.mar",
        *options,
        HF_ENDPOINT=hub.url,
        HF_HOME=str(tmp_path / "cache"),
        HF_HUB_DISABLE_TELEMETRY="1",
    )


def test_only_needed_files_are_downloaded_and_the_archive_is_the_folders(hub: Hub, tmp_path: Path) -> None:
    done = build_from_hub(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    names = {name for name, _ in hub.downloads}
    assert HALF in names
    assert not names & {UNET, "safety_checker/model.safetensors", "v1.ckpt", "README.md"}
    assert not [name for name in names if name.endswith(".bin")]
    local = build(BuildConfig(str(hub.folder), tmp_path / "local.mar"), Silent())
    assert (tmp_path / "model.mar").read_bytes() == local.path.read_bytes()
    assert f"downloading {REPOSITORY}" in done.stderr
    hub.downloads.clear()
    assert build_from_hub(hub, tmp_path).returncode == 0
    assert hub.downloads == []


def test_a_cut_connection_is_resumed_within_the_run(hub: Hub, big_file: str, tmp_path: Path) -> None:
    hub.cut_after, hub.cuts_left = {big_file: 2 * DOWNLOAD_CHUNK_SIZE + 1}, 1
    done = build_from_hub(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    asked = [asked for name, asked in hub.downloads if name == big_file]
    assert asked == [None, f"bytes={2 * DOWNLOAD_CHUNK_SIZE}-"]
    with zipfile.ZipFile(tmp_path / "model.mar") as archive:
        assert archive.read(f"model/{UNET}") == (hub.folder / big_file).read_bytes()


def test_a_download_given_up_is_resumed_by_the_next_run(hub: Hub, big_file: str, tmp_path: Path) -> None:
    hub.cut_after, hub.cuts_left = {big_file: DOWNLOAD_CHUNK_SIZE}, 1
    hub.then_refuse = True
    done = build_from_hub(hub, tmp_path)
    assert done.returncode == 1
    assert "could not be downloaded" in done.stderr
    assert "run the same command again" in done.stderr
    assert not (tmp_path / "model.mar").exists()
    hub.then_refuse = False
    hub.downloads.clear()
    assert build_from_hub(hub, tmp_path).returncode == 0
    assert (big_file, f"bytes={DOWNLOAD_CHUNK_SIZE}-") in hub.downloads
    assert "model_index.json" not in [name for name, _ in hub.downloads]


def test_a_hub_that_takes_no_ranges_sends_the_whole_again(hub: Hub, big_file: str, tmp_path: Path) -> None:
    hub.cut_after, hub.cuts_left, hub.ignores_ranges = {big_file: DOWNLOAD_CHUNK_SIZE}, 1, True
    done = build_from_hub(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert [asked for name, asked in hub.downloads if name == big_file] == [None, None]
    with zipfile.ZipFile(tmp_path / "model.mar") as archive:
        assert archive.read(f"model/{UNET}") == (hub.folder / big_file).read_bytes()


def test_the_hub_library_is_used_by_its_public_names_alone() -> None:
    tree = ast.parse(Path(pipeline.archive.hub.__file__).read_text(encoding="utf-8"))
    found = [
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("huggingface_hub")
        for alias in node.names
    ]
    private = [(module, name) for module, name in found if module not in PUBLIC or name.startswith("_")]
    assert found
    assert not private


def test_a_revision_is_pinned(hub: Hub, tmp_path: Path) -> None:
    assert build_from_hub(hub, tmp_path, "--revision", TAG).returncode == 0
    assert hub.revisions == [TAG]
    assert list((tmp_path / "cache").rglob(COMMIT))
    done = build_from_hub(hub, tmp_path, "--revision", "v9")
    assert done.returncode == 1
    assert "no revision 'v9'" in done.stderr


def test_a_repository_that_is_gone_names_its_mirror(hub: Hub, tmp_path: Path) -> None:
    done = build_from_hub(hub, tmp_path, model="runwayml/stable-diffusion-v1-5")
    assert done.returncode == 1
    assert "runwayml/stable-diffusion-v1-5 is neither a folder here nor a repository" in done.stderr
    assert "marquee build --model stable-diffusion-v1-5/stable-diffusion-v1-5" in done.stderr


def test_a_repository_of_pickles_is_refused_before_they_are_downloaded(hub: Hub, tmp_path: Path) -> None:
    (hub.folder / UNET).unlink()
    (hub.folder / HALF).unlink()
    done = build_from_hub(hub, tmp_path)
    assert done.returncode == 1
    assert "only unet/diffusion_pytorch_model.bin" in done.stderr
    download = f"hf download {REPOSITORY} --local-dir model"
    assert f"cure: {download} && marquee convert model && marquee build --model model" in done.stderr
    assert {name for name, _ in hub.downloads} == {"model_index.json"}


def test_no_hub_is_one_clear_line(hub: Hub, tmp_path: Path) -> None:
    hub.url = "http://127.0.0.1:9"
    done = build_from_hub(hub, tmp_path)
    assert done.returncode == 1
    assert f"error: {REPOSITORY} could not be downloaded" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_arrives_changed_is_thrown_away(hub: Hub, big_file: str, tmp_path: Path) -> None:
    hub.cut_after, hub.cuts_left, hub.then_refuse = {big_file: DOWNLOAD_CHUNK_SIZE}, 1, True
    assert build_from_hub(hub, tmp_path).returncode == 1
    (partial,) = (tmp_path / "cache").rglob("*.part")
    partial.write_bytes(b"x" * DOWNLOAD_CHUNK_SIZE)
    hub.then_refuse = False
    done = build_from_hub(hub, tmp_path)
    assert done.returncode == 1
    assert "arrived with SHA-256" in done.stderr
    assert build_from_hub(hub, tmp_path).returncode == 0
