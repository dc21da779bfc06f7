"""The same inputs through torch-model-archiver: members and manifest agree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pipeline.archive.build import BuildConfig, build
from pipeline.client import Client
from pipeline.progress import Silent
from pipeline.serving import launch_files
from pipeline.serving.server import RunningServer
from pipeline.serving.settings import ServeOptions
from pipeline.serving.torchserve import serve


def official_archive(unpacked: Path, work: Path, archive_format: str) -> Path:
    """What the official tool makes of an unpacked archive's own files."""
    inputs = work / "inputs"
    shutil.copytree(unpacked, inputs, ignore=shutil.ignore_patterns("MAR-INF", "*.mar"))
    handler, config = work / "marquee_handler.py", work / "model-config.yaml"
    (inputs / handler.name).rename(handler)
    (inputs / config.name).rename(config)
    (work / "tmp").mkdir()
    command: list[str | Path] = [
        Path(sys.executable).parent / "torch-model-archiver",
        *("--model-name", "model", "--version", "1.0", "--handler", handler, "--config-file", config),
        *("--extra-files", inputs, "--export-path", work, "--archive-format", archive_format, "--force"),
    ]
    # The tool deletes $TMPDIR/model before it starts, so it gets a folder of its own.
    subprocess.run(command, check=True, timeout=240, env=os.environ | {"TMPDIR": str(work / "tmp")})
    return work / "model.mar"


@pytest.mark.parametrize("archive_format", ["default", "zip-store"])
def test_members_and_manifest_agree(saved_pipeline: Path, tmp_path: Path, archive_format: str) -> None:
    built = build(BuildConfig(str(saved_pipeline), tmp_path / "ours.mar"), Silent())
    with zipfile.ZipFile(built.path) as ours:
        ours.extractall(tmp_path / "unpacked")
        work = tmp_path / "official"
        work.mkdir()
        with zipfile.ZipFile(official_archive(tmp_path / "unpacked", work, archive_format)) as official:
            members = {name: ours.read(name) for name in ours.namelist()}
            del members["MAR-INF/SHA256SUMS"]
            manifest = json.loads(members.pop("MAR-INF/MANIFEST.json"))
            others = {name: official.read(name) for name in official.namelist()}
            other_manifest = json.loads(others.pop("MAR-INF/MANIFEST.json"))
    assert members == others
    assert manifest.keys() == other_manifest.keys()
    assert manifest | {"createdOn": ""} == other_manifest | {"createdOn": ""}


def test_inspect_says_that_an_official_archive_cannot_be_verified(
    saved_pipeline: Path, tmp_path: Path
) -> None:
    from pipeline.archive.inspection import inspect_archive

    built = build(BuildConfig(str(saved_pipeline), tmp_path / "ours.mar"), Silent())
    with zipfile.ZipFile(built.path) as ours:
        ours.extractall(tmp_path / "unpacked")
    (tmp_path / "official").mkdir()
    path = official_archive(tmp_path / "unpacked", tmp_path / "official", "zip-store")
    assert inspect_archive(path, Silent()).problems == ("MAR-INF/SHA256SUMS is missing",)


@pytest.mark.torchserve
def test_both_archives_serve_the_same_picture(
    model_mar: Path, server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The official tool writes no sums, so marquee refuses to serve its archive; plain TorchServe does.
    monkeypatch.setattr(launch_files, "verified_copy", lambda mar, copy, **_: shutil.copyfile(mar, copy))
    with zipfile.ZipFile(model_mar) as ours:
        ours.extractall(tmp_path / "unpacked")
    (tmp_path / "official").mkdir()
    official = official_archive(tmp_path / "unpacked", tmp_path / "official", "zip-store")
    asked = {"prompt": "a red circle", "num_inference_steps": 2, "output_format": "png"}

    def draw(running: RunningServer) -> list[bytes]:
        with Client(running.url) as client:
            return [client.predict([{**asked, "seed": seed}])[0].data for seed in (5, 6)]

    ours_drew = draw(server)
    with serve(official, ServeOptions(threads=1)) as theirs:
        assert draw(theirs) == ours_drew
    assert ours_drew[0] != ours_drew[1]  # the comparison can tell pictures apart
