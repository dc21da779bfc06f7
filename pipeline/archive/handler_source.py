"""The handler package as archive members, found without importing it."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

from pipeline.archive.layout import HANDLER_FILE, HANDLER_PACKAGE, Member, file_member
from pipeline.errors import MarqueeError

SHIPPED_SUFFIXES = (".py", ".json", ".yaml")


def find_handler() -> Path:
    """The folder of the installed handler package."""
    spec = importlib.util.find_spec(HANDLER_PACKAGE)
    places = list(spec.submodule_search_locations or []) if spec else []
    if not places or not (Path(places[0]) / HANDLER_FILE).is_file():
        raise MarqueeError(
            f"no package named {HANDLER_PACKAGE} with {HANDLER_FILE} is installed beside pipeline",
            cure="run `make env` in marquee's repository, which installs both",
        )
    return Path(places[0])


def handler_members(package: Path) -> list[Member]:
    """The root module that TorchServe loads, and the package beside it."""
    members = [file_member(HANDLER_FILE, package / HANDLER_FILE)]
    for path in sorted(package.rglob("*")):
        name = path.relative_to(package)
        hidden = any(part.startswith((".", "__pycache__")) for part in name.parts)
        if hidden or name == Path(HANDLER_FILE) or path.suffix not in SHIPPED_SUFFIXES:
            continue
        members.append(file_member(f"{HANDLER_PACKAGE}/{name.as_posix()}", path))
    return members


def read_version(source: str) -> str | None:
    """The literal ``__version__`` in a module's source; the module is not imported."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__version__" for target in node.targets
        ):
            return str(node.value.value) if isinstance(node.value, ast.Constant) else None
    return None
