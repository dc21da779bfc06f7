"""Packages that travel inside the archive, for containers that lack them: all first on the path."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

PACKAGES_FOLDER = "packages"
OLDEST_PILLOW = (9, 1)


class ContainerError(RuntimeError):
    """The container lacks something that the archive cannot bring; says what."""


def use_vendored(root: Path) -> None:
    """Put ``root``/packages first on the path, where the archive has it.

    Modules of the same names that the server has already imported are forgotten: half of one set beside half
    of another crash-loops the worker.
    """
    folder = root / PACKAGES_FOLDER
    if not folder.is_dir() or str(folder) in sys.path:
        return
    brought = {path.name.partition(".")[0] for path in folder.iterdir()}
    for name in [name for name in sys.modules if name.partition(".")[0] in brought]:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


def check_pillow() -> None:
    """Pillow is the container's own; an older one fails much later, as a missing AutoImageProcessor."""
    from PIL import __version__

    if tuple(int(part) for part in __version__.split(".")[:2]) < OLDEST_PILLOW:
        raise ContainerError(f"the container's Pillow is {__version__}; it must be 9.1 or newer")
