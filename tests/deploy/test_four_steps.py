"""Programs that know nothing of marquee, run unmodified under `marquee cloud run` with real TorchServe."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from pipeline.archive import build as steps
from pipeline.progress import Silent

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"
pytestmark = [pytest.mark.torchserve, pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model artifacts as somebody keeps them: the archive, its settings, and the model it was made from."""
    folder = tmp_path_factory.mktemp("artifacts") / "model_artifacts"
    shutil.copytree(ROOT / steps.EMBEDDED_MODEL, folder / "shapes")
    shutil.copy(ROOT / "model_artifacts" / "model-config.yaml", folder)
    container = "vertex-pytorch-gpu-2-4"
    model, out = str(folder / "shapes"), folder / "model.mar"
    steps.build(steps.BuildConfig(model=model, out=out, container=container), Silent())
    return folder


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cloud for the module, so that its certificates and programs' imports are paid once."""
    state = tmp_path_factory.mktemp("cloud")
    marquee("cloud", "up", "--state", str(state))
    yield state
    marquee("cloud", "down", "--state", str(state))


def marquee(*words: str, **environment: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "pipeline", *words],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def run(state: Path, program: Path, *arguments: Path, **environment: str) -> str:
    words = [sys.executable, str(program), *map(str, arguments)]
    return marquee("cloud", "run", "--state", str(state), "--", *words, **environment)


def assert_red_circle(file: Path) -> None:
    """Red in the middle, blue in the corners."""
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    middle = picture.resize((3, 3)).getpixel((1, 1))
    corner = picture.getpixel((1, 1))
    assert middle[0] > middle[2], middle
    assert corner[2] > corner[0], corner


def test_the_tutorials_four_steps(state: Path, folder: Path, tmp_path: Path) -> None:
    picture = tmp_path / "picture.jpg"
    source = (ROOT / "docs" / "four_steps.py").read_text()
    assert "import marquee" not in source
    assert "pipeline" not in source
    out = run(state, ROOT / "docs" / "four_steps.py", ARCHIVE=str(folder / "model.mar"), PICTURE=str(picture))
    assert "by deployed model" in out
    assert_red_circle(picture)


def test_a_local_folder_is_staged_by_the_sdk(state: Path, folder: Path, tmp_path: Path) -> None:
    only_the_archive = tmp_path / "staged"
    only_the_archive.mkdir()
    shutil.copy(folder / "model.mar", only_the_archive)
    picture = tmp_path / "picture.jpg"
    run(state, PROGRAMS / "local_folder.py", only_the_archive, PICTURE=str(picture))
    assert_red_circle(picture)


def test_a_bucket_filled_with_all_of_model_artifacts(state: Path, folder: Path, tmp_path: Path) -> None:
    picture = tmp_path / "picture.jpg"
    run(state, PROGRAMS / "filled_bucket.py", folder, PICTURE=str(picture))
    assert_red_circle(picture)


def test_deploy_builds_what_it_deploys_and_the_rehearsal_is_green(state: Path, tmp_path: Path) -> None:
    """No archive is named; what is built brings packages for Python 3.9 and draws here all the same."""
    cloud = {"MARQUEE_CLOUD": str(state)}
    picture = tmp_path / "picture.png"
    doctor = marquee("doctor", "--profile", "p100", **cloud)
    assert "the archive fits vertex-pytorch-gpu-2-4" in doctor
    assert "rehearsed with this machine's packages" in doctor
    assert "rehearsed with this machine's packages" in marquee("deploy", "--profile", "p100", **cloud)
    planned = marquee("plan", "--profile", "p100", **cloud)
    assert "nothing to do" in planned
    assert "rehearsal: rehearsed with this machine's packages" in planned
    marquee(
        "predict", "a red circle on a blue background", "--endpoint", "marquee", "-o", str(picture), **cloud
    )
    assert_red_circle(picture)
    marquee("teardown", **cloud)


def test_an_archive_that_google_would_refuse_is_refused_before_anything_is_made(
    state: Path, model_mar: Path
) -> None:
    words = ("--profile", "p100", "--archive", str(model_mar))
    environment = {**os.environ, "MARQUEE_CLOUD": str(state)}
    for command in ("doctor", "deploy"):
        ran = subprocess.run(
            [sys.executable, "-m", "pipeline", command, *words],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert ran.returncode == 1
        assert f"{model_mar} does not bring diffusers" in ran.stdout + ran.stderr
        assert "marquee build --container vertex-pytorch-gpu-2-4" in ran.stdout + ran.stderr
    assert "not registered" in marquee("status", MARQUEE_CLOUD=str(state))
