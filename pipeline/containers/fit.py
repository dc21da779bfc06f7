"""Whether a container can run an archive: its packages, its settings, and the container it was built for."""

from __future__ import annotations

import ast
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.archive.layout import (
    CONFIG_FILE,
    CONTAINER_FILE,
    HANDLER_FILE,
    HANDLER_PACKAGE,
    PACKAGES_FOLDER,
    SUMS,
)
from pipeline.archive.model_config import CONTINUOUS_BATCHING
from pipeline.archive.target.targets import Target, find_target, target_names
from pipeline.rules import parse_prebuilt

# Packages that the prebuilt containers may not have (docs/prebuilt-rehearsal.md).
ABSENT = ("diffusers", "transformers", "tokenizers", "safetensors", "huggingface_hub", "accelerate")
_MOST_BYTES = 8 << 20
_MOST_BRACKETS = 1000  # PyYAML takes quadratic time for nested ones


@dataclass(frozen=True)
class Contents:
    """What of an archive decides where it runs.

    ``ours``: `marquee build` made it. ``container`` is the target it was built for (None: it does not say).
    ``packages_for``: the Python and platform of the packages it brings ("": any). ``needed`` are those of
    ABSENT that its handler imports, ``missing`` those of them that it does not bring.
    """

    ours: bool
    container: str | None
    packages_for: str
    needed: tuple[str, ...]
    missing: tuple[str, ...]
    continuous_batching: bool


@dataclass(frozen=True)
class Misfit:
    """One reason why a container does not run an archive.

    ``failure`` is its id in pipeline/doctor/failures.yaml. ``log_line`` is what the container itself would
    say; "": it would run the archive all the same.
    """

    failure: str
    log_line: str


def target_of(image_uri: str, container: str = "") -> Target | None:
    """The target of an image: a prebuilt one by its address, marquee's own by ``container``; else None."""
    image = parse_prebuilt(image_uri)
    name = f"vertex-pytorch-{image.kind}-{image.version}" if image else container
    return find_target(name) if name in target_names() and (image or name == "marquee") else None


def read_contents(archive: Path) -> Contents:
    """Raises OSError, zipfile.BadZipFile or ValueError for a file that is not an archive."""
    with zipfile.ZipFile(archive) as mar:
        names = set(mar.namelist())
        record = _document(_text(mar, names, CONTAINER_FILE))
        imported = {
            module for name in names if _is_handler_code(name) for module in _imports(_text(mar, names, name))
        }
        settings = _settings(_text(mar, names, CONFIG_FILE))
    brought = {name.split("/")[1] for name in names if name.startswith(f"{PACKAGES_FOLDER}/")}
    brought |= {name.split("/")[0] for name in names}
    needed = tuple(name for name in ABSENT if name in imported)
    return Contents(
        ours=HANDLER_FILE in names and SUMS in names,
        container=str(record["container"]) if "container" in record else None,
        packages_for=f"{record['python']} {record['platform']}"
        if {"python", "platform"} <= set(record)
        else "",
        needed=needed,
        missing=tuple(name for name in needed if name not in brought),
        continuous_batching=settings.get(CONTINUOUS_BATCHING) is True,
    )


def misfits(contents: Contents, image_uri: str, container: str = "") -> list[Misfit]:
    """The reasons why the container of ``image_uri`` cannot run it; none where the image is not a target."""
    found, target = [], target_of(image_uri, container)
    if parse_prebuilt(image_uri):
        if missing := missing_in(contents, target):
            line = f"ModuleNotFoundError: No module named '{missing[0]}'"
            found.append(Misfit("packages_missing" if contents.ours else "packages_unknown", line))
        if contents.continuous_batching:
            line = "RuntimeError: TorchServe 0.9 to 0.11.0 answers nothing under continuousBatching"
            found.append(Misfit("continuous_batching_hangs", line))
    if target and contents.container not in (None, target.name):
        found.append(Misfit("other_container", ""))
    return found


def missing_in(contents: Contents, target: Target | None) -> tuple[str, ...]:
    """The packages that the handler will not find; vendored.py ignores those for another Python."""
    if target and contents.packages_for not in ("", f"{target.python_tag} {target.platform}"):
        return contents.needed
    return contents.missing


def container_log(archive: Path, image_uri: str) -> list[str]:
    """The log line of a container that fails on an archive of marquee's; "" where it may run it.

    Of somebody else's handler that imports a missing package this cannot be said: it may install it itself.
    """
    found = misfits(read_contents(archive), image_uri)
    return [one.log_line for one in found if one.log_line and one.failure != "packages_unknown"]


def _is_handler_code(name: str) -> bool:
    """Whether this is one of the handler's own modules, and not one of the packages beside it."""
    return name.endswith(".py") and ("/" not in name or name.startswith(f"{HANDLER_PACKAGE}/"))


def _text(mar: zipfile.ZipFile, names: set[str], name: str) -> str:
    if name not in names:
        return ""
    with mar.open(name) as file:
        return file.read(_MOST_BYTES).decode("utf-8", "replace")


def _imports(source: str) -> Iterator[str]:
    """The top-level names of every absolute import, inside functions too; none where it is not Python."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _document(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _settings(text: str) -> dict[str, Any]:
    """The values of model-config.yaml; none of a file for which PyYAML would take minutes."""
    import yaml

    if text.count("[") + text.count("{") > _MOST_BRACKETS:
        return {}
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
