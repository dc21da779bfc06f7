"""Each program reads the environment in one file; the rest of it gets values."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from pipeline.environment import read_environment

ROOT = Path(__file__).resolve().parents[1]
READERS = ("environ", "environb", "getenv", "getenvb", "putenv")
# Programs of the image: they run where no package of ours is installed.
OF_THE_IMAGE = ROOT / "pipeline" / "containers" / "image_files"


def reads_environment(source: str) -> bool:
    """Whether a module takes ``os.environ`` or one of its siblings, by whatever name it imports ``os``."""
    nodes = list(ast.walk(ast.parse(source)))
    imports = [alias for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules = {alias.asname or alias.name for alias in imports if alias.name == "os"}
    named = [
        alias.name
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module == "os"
        for alias in node.names
    ]
    taken = [
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules
    ]
    return any(name in READERS for name in [*named, *taken])


def test_the_pipeline_reads_the_environment_in_one_file() -> None:
    found = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "pipeline").rglob("*.py"))
        if OF_THE_IMAGE not in path.parents and reads_environment(path.read_text(encoding="utf-8"))
    ]
    assert found == ["pipeline/environment.py"]


@pytest.mark.parametrize(
    "source", ["import os as o\no.environ", "from os import getenv", "import os\nos.getenv()"]
)
def test_every_spelling_is_found(source: str) -> None:
    assert reads_environment(source)


def test_what_was_read_does_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARQUEE_CLOUD", "/one")
    environment = read_environment()
    monkeypatch.setenv("MARQUEE_CLOUD", "/two")
    assert environment.cloud_folder == Path("/one")
    assert read_environment().cloud_folder == Path("/two")
