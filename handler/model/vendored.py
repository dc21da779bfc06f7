"""Packages that travel inside the archive, for containers that lack them: all first on the path."""

from __future__ import annotations

import importlib
import json
import logging
import sys
import sysconfig
from pathlib import Path

PACKAGES_FOLDER = "packages"
# Written at build where the archive is for one container: which one, its Python and its platform.
CONTAINER_FILE = Path("MAR-INF", "CONTAINER.json")
OLDEST_PILLOW = (9, 1)

logger = logging.getLogger(__name__)


class ContainerError(RuntimeError):
    """The container lacks something that the archive cannot bring; says what."""


def use_vendored(root: Path) -> None:
    """Put ``root``/packages first on the path, where the archive has it and it fits this Python.

    Modules of the same names that the server has already imported are forgotten: half of one set beside half
    of another crash-loops the worker.
    """
    folder = root / PACKAGES_FOLDER
    if not folder.is_dir() or str(folder) in sys.path:
        return
    built_for, here = _built_for(root), running_on()
    if built_for not in (None, here):
        logger.warning(
            "the archive's packages are for %s and this is %s: the environment's own are used",
            built_for,
            here,
        )
        return
    brought = {path.name.partition(".")[0] for path in folder.iterdir()}
    for name in [name for name in sys.modules if name.partition(".")[0] in brought]:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


def packages_in_use(root: Path) -> dict[str, str | None]:
    """Whose diffusers, transformers and so on are imported: "archive" or "environment".

    ``built_for``: the Python and platform of the archive's own packages; None where it carries none.
    """
    folder = root / PACKAGES_FOLDER
    return {
        "source": "archive" if str(folder) in sys.path else "environment",
        "built_for": _built_for(root) if folder.is_dir() else None,
        "running_on": running_on(),
    }


def running_on() -> str:
    """This interpreter and platform in the words of a wheel's file name, such as "cp39 linux_x86_64"."""
    name = {"cpython": "cp"}.get(sys.implementation.name, sys.implementation.name)
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return f"{name}{sys.version_info[0]}{sys.version_info[1]} {platform}"


def _built_for(root: Path) -> str | None:
    file = root / CONTAINER_FILE
    if not file.is_file():
        return None
    record = json.loads(file.read_text(encoding="utf-8"))
    return f"{record['python']} {record['platform']}"


def check_pillow() -> None:
    """Pillow is the container's own; an older one fails much later, as a missing AutoImageProcessor."""
    from PIL import __version__

    if tuple(int(part) for part in __version__.split(".")[:2]) < OLDEST_PILLOW:
        raise ContainerError(f"the container's Pillow is {__version__}; it must be 9.1 or newer")
