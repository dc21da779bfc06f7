"""Reads deploy.yaml into keys and values, and refuses a file that holds anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import MarqueeError

_LARGEST_BYTES = 1 << 20


def read_values(file: Path) -> dict[str, Any]:
    """The keys and values. Raises MarqueeError for anything that is not a YAML mapping of 1 MiB at most."""
    name_it = "name the file with --config"
    try:
        if file.exists() and not file.is_file():
            raise MarqueeError(f"{file} cannot be read: it is not a regular file", cure=name_it)
        if file.stat().st_size > _LARGEST_BYTES:
            raise MarqueeError(
                f"{file} is larger than 1 MiB, far more than a deployment's keys need", cure=name_it
            )
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise MarqueeError(f"{file} cannot be read: {error.strerror}", cure=name_it) from error
    except UnicodeDecodeError as error:
        raise MarqueeError(f"{file} is not text in UTF-8: {error.reason}", cure="save it as UTF-8") from error
    except RecursionError as error:
        raise MarqueeError(f"{file} is nested too deeply", cure="docs/deploy.yaml shows every key") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2020-99-99
        raise MarqueeError(f"{file} is not YAML: {error}", cure="docs/deploy.yaml shows every key") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise MarqueeError(f"{file} holds {type(values).__name__}, not keys and values")
    strange = [key for key in values if not isinstance(key, str)]
    if strange:
        raise MarqueeError(
            f"{file}: the key {strange[0]!r} is not a name", cure="docs/deploy.yaml shows every key"
        )
    return values
