"""Whether an archive fits a container, decided from the archive's content."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from pipeline.archive.target.targets import container_record, find_target
from pipeline.containers.fit import container_log, misfits, read_contents, target_of

PREBUILT = "europe-docker.pkg.dev/vertex-ai/prediction/pytorch-gpu.2-4:latest"
OWN = "us-central1-docker.pkg.dev/me/images/marquee:t4"
DIFFUSERS = "import torch\ndef load():\n    from diffusers.models import AutoencoderKL\n"
TAG = "vertex-pytorch-gpu-2-4"


def archive(
    folder: Path, built_for: str | None, brings: bool, continuous: bool = False, ours: bool = True
) -> Path:
    """An archive whose handler imports diffusers, as `marquee build` lays it out or as somebody else does."""
    path = folder / "model.mar"
    with zipfile.ZipFile(path, "w") as mar:
        mar.writestr("handler/deep/model.py" if ours else "theirs.py", DIFFUSERS)
        mar.writestr("packages/wrapped/late.py", "import accelerate")
        mar.writestr("model-config.yaml", json.dumps({"continuousBatching": True} if continuous else {}))
        if ours:
            mar.writestr("marquee_handler.py", "from handler.deep.model import load\n")
            mar.writestr("MAR-INF/SHA256SUMS", "")
        if brings:
            mar.writestr("packages/diffusers/__init__.py", "")
        if built_for:
            mar.writestr("MAR-INF/CONTAINER.json", container_record(find_target(built_for)))
    return path


@pytest.mark.parametrize(
    ("built_for", "brings", "continuous", "image", "container", "expected"),
    [
        (TAG, True, False, PREBUILT, TAG, []),
        (None, False, False, PREBUILT, TAG, ["packages_missing"]),
        (None, True, True, PREBUILT, TAG, ["continuous_batching_hangs"]),
        (
            "marquee",
            False,
            True,
            PREBUILT,
            TAG,
            ["packages_missing", "continuous_batching_hangs", "other_container"],
        ),
        ("vertex-pytorch-gpu-2-2", True, False, PREBUILT, TAG, ["other_container"]),
        (TAG, True, False, OWN, "marquee", ["other_container"]),
        ("marquee", False, True, OWN, "marquee", []),
        (None, False, False, OWN, "marquee", []),
        ("marquee", False, True, OWN, "an-image-that-nobody-knows", []),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path,
    built_for: str | None,
    brings: bool,
    continuous: bool,
    image: str,
    container: str,
    expected: list[str],
) -> None:
    contents = read_contents(archive(tmp_path, built_for, brings, continuous))
    assert [one.failure for one in misfits(contents, image, container)] == expected


def test_a_container_dies_of_the_first_package_that_it_lacks(tmp_path: Path) -> None:
    assert container_log(archive(tmp_path, None, brings=False), PREBUILT) == [
        "ModuleNotFoundError: No module named 'diffusers'"
    ]
    assert container_log(archive(tmp_path, "vertex-pytorch-gpu-2-2", brings=True), PREBUILT) == []
    assert container_log(archive(tmp_path, None, brings=False), OWN) == []


def test_packages_for_another_python_are_as_good_as_missing(tmp_path: Path) -> None:
    path = archive(tmp_path, None, brings=True)
    record = json.loads(container_record(find_target(TAG))) | {"python": "cp311"}
    with zipfile.ZipFile(path, "a") as mar:
        mar.writestr("MAR-INF/CONTAINER.json", json.dumps(record))
    assert [one.failure for one in misfits(read_contents(path), PREBUILT, TAG)] == ["packages_missing"]
    assert container_log(path, PREBUILT) == ["ModuleNotFoundError: No module named 'diffusers'"]


def test_somebody_elses_handler_may_install_what_it_imports(tmp_path: Path) -> None:
    theirs = archive(tmp_path, None, brings=False, ours=False)
    assert [one.failure for one in misfits(read_contents(theirs), PREBUILT)] == ["packages_unknown"]
    assert container_log(theirs, PREBUILT) == []


@pytest.mark.parametrize("settings", ["[" * 5000, "a: &a [*a]", "{continuousBatching: true", "- 1", ""])
def test_settings_that_are_none_say_nothing(tmp_path: Path, settings: str) -> None:
    with zipfile.ZipFile(tmp_path / "model.mar", "w") as mar:
        mar.writestr("model-config.yaml", settings)
        mar.writestr("broken.py", "def (")
        mar.writestr("MAR-INF/CONTAINER.json", settings)
    contents = read_contents(tmp_path / "model.mar")
    assert (contents.continuous_batching, contents.missing, contents.container) == (False, (), None)


def test_targets_are_known_by_their_image() -> None:
    cpu = target_of("asia-docker.pkg.dev/vertex-ai/prediction/pytorch-cpu.2-3:latest")
    assert cpu
    assert (cpu.name, cpu.python) == ("vertex-pytorch-cpu-2-3", "3.9")
    assert target_of("us-docker.pkg.dev/vertex-ai/prediction/pytorch-gpu.1-12:latest", TAG) is None
    assert target_of(OWN, TAG) is None
