"""The locked wheels of a target: downloaded once, checked against the lock every time."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline.archive.target.targets import Target
from pipeline.errors import MarqueeError
from pipeline.progress import Progress

DOWNLOAD_TIMEOUT_SECONDS = 1800
_LOCKED = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+) --hash=sha256:([0-9a-f]{64})$")


@dataclass(frozen=True)
class LockedPackage:
    """One line of a lock file, which allows exactly one wheel."""

    name: str
    version: str
    sha256: str


def parse_lock(text: str) -> list[LockedPackage]:
    """The packages of a lock file; raises ValueError naming a line that pins no hash."""
    packages = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            match = _LOCKED.match(line)
            if match is None:
                raise ValueError(f"not 'name==version --hash=sha256:...': {line!r}")
            packages.append(LockedPackage(*match.groups()))
    return packages


def fetch_wheels(target: Target, lock: str, cache: Path, progress: Progress) -> list[Path]:
    """Every wheel of the target's lock file, in the lock's order, from the cache or from the package index.

    Raises MarqueeError where one cannot be downloaded or is not the locked one.
    """
    cache.mkdir(parents=True, exist_ok=True)
    packages = parse_lock(lock)
    wheels = _cached(packages, cache)
    if any(package not in wheels for package in packages):
        progress.note(f"downloading {len(packages) - len(wheels)} packages for {target.name}")
        _download(target, lock, cache)
        wheels = _cached(packages, cache)
    missing = [package.name for package in packages if package not in wheels]
    if missing:
        raise MarqueeError(f"the package index did not give the locked {', '.join(missing)}")
    return [wheels[package] for package in packages]


def _cached(packages: list[LockedPackage], cache: Path) -> dict[LockedPackage, Path]:
    by_digest = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in sorted(cache.glob("*.whl"))}
    return {package: by_digest[package.sha256] for package in packages if package.sha256 in by_digest}


def _download(target: Target, lock: str, cache: Path) -> None:
    """Download with pip, which resolves nothing: the lock lists every wheel for the target's Python."""
    requirements = cache / str(target.lock)
    requirements.write_text(lock, encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary=:all:", "--python-version", target.python, "--implementation", "cp"]
    command += ["--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_17_x86_64"]
    command += [
        "--abi",
        target.python_tag,
        "--abi",
        "abi3",
        "--abi",
        "none",
        "--requirement",
        str(requirements),
        "--dest",
        str(cache),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_SECONDS, check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = lines[0] if lines else f"pip ended with {done.returncode}"
        raise MarqueeError(
            f"the packages for {target.name} could not be downloaded: {reason}",
            cure="check the network or pip's index settings and run the same command again",
        )
