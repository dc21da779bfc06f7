"""Finds a Python 3.9 on this machine for the twin; every candidate is run before it is used."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.errors import MarqueeError

VERSION = "3.9"
VARIABLE = "PYTHON39"
_CODE = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
_SECONDS = 60
_CURE = f"install one (pyenv install 3.9), or name it: --python PATH, or {VARIABLE}=PATH"


def find_python39(wanted: Path | None, environment: Mapping[str, str]) -> Path:
    """``wanted``, or what $PYTHON39 names, and nothing else; otherwise the first of PATH and pyenv that runs.

    A pyenv shim is on the PATH whether its version is active or not, so being there says nothing. Raises
    MarqueeError that lists what was tried and how each ended.
    """
    named = wanted or (Path(environment[VARIABLE]) if environment.get(VARIABLE) else None)
    candidates = [_command(named, environment)] if named else list(dict.fromkeys(_candidates(environment)))
    tried = []
    for path in candidates:
        problem = _problem(path)
        if problem is None:
            return path
        tried.append(f"\n  - {path}: {problem}")
    if named:
        origin = "--python" if wanted else VARIABLE
        raise MarqueeError(
            f"{origin} names no Python {VERSION} that can make an environment:{tried[0]}", _CURE
        )
    told = "".join(tried) or "\n  - there is no python3.9 on the PATH and no 3.9 in pyenv"
    raise MarqueeError(f"no Python {VERSION} that runs was found; tried:{told}", _CURE)


def _command(named: Path, environment: Mapping[str, str]) -> Path:
    return Path(shutil.which(str(named), path=environment.get("PATH")) or named)


def _candidates(environment: Mapping[str, str]) -> Iterator[Path]:
    folders = [Path(one) for one in environment.get("PATH", os.defpath).split(os.pathsep) if one]
    for folder in folders:
        if os.access(path := folder / f"python{VERSION}", os.X_OK):
            yield path
    home = Path(environment.get("HOME") or Path.home())
    # A shim asks the pyenv of $HOME, which may be another user's; its own pyenv is beside it.
    roots = [
        Path(environment.get("PYENV_ROOT") or home / ".pyenv"),
        *(folder.parent for folder in folders if folder.name == "shims"),
    ]
    for pyenv in roots:
        yield from sorted(pyenv.glob(f"versions/{VERSION}*/bin/python{VERSION}"), key=_numbers, reverse=True)


def _numbers(path: Path) -> list[int]:
    """3.9.18 is newer than 3.9.9."""
    return [int(number) for number in re.findall(r"\d+", path.parts[-3])]


def _problem(python: Path) -> str | None:
    """Why a candidate cannot be used; None where it can."""
    try:
        done = subprocess.run(
            [str(python), "-c", _CODE], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except OSError as error:
        return error.strerror or str(error)
    except subprocess.TimeoutExpired:
        return f"no answer within {_SECONDS} s"
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["(no output)"]
        word = lines[-1] if lines[0].startswith("Traceback") else lines[0]
        return f"ended with {done.returncode}: {word.strip()}"
    found = done.stdout.strip()
    return None if found == VERSION else f"is Python {found or 'of no version'}"
