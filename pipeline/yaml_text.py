"""Reads a user's YAML: plain data of bounded size; a MarqueeError says what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import MarqueeError

MOST_BYTES = 1 << 20
# PyYAML takes time with the square of the brackets that are open, and Python's stack with each.
MOST_BRACKETS = 500


def parse_yaml(text: str, name: str) -> Any:
    """The value of a text; ``name`` says in the MarqueeError where it stands. Aliases are refused.

    An alias can hold itself, and a few lines of them billions of values.
    """
    if len(text) > MOST_BYTES or text.count("[") + text.count("{") > MOST_BRACKETS:
        raise MarqueeError(f"{name} is not valid YAML: it is too long or nested too deeply")
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, yaml.SafeLoader)):
            raise MarqueeError(f"{name} is not valid YAML: it has an alias (*name)", "write the value out")
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        place = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise MarqueeError(f"{name} is not valid YAML: {error.problem}{place}") from error
    except RecursionError:
        raise MarqueeError(f"{name} is not valid YAML: it is nested too deeply") from None
    # PyYAML raises ValueError for a date that does not exist, and TypeError for a key that is not hashable.
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise MarqueeError(f"{name} is not valid YAML: {getattr(error, 'reason', error)}") from error


def read_yaml(path: Path, cure: str | None = None) -> Any:
    """The value of a file in UTF-8 of at most 1 MiB. Raises MarqueeError; waits for no pipe."""
    try:
        if path.exists() and not path.is_file():
            raise MarqueeError(f"{path} is not a file", cure)
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise MarqueeError(f"{path} has more than {MOST_BYTES:,} bytes", cure)
        return parse_yaml(content.decode("utf-8"), str(path))
    except OSError as error:
        raise MarqueeError(f"{path} cannot be read: {error.strerror}", cure) from error
    except UnicodeDecodeError as error:
        raise MarqueeError(f"{path} is not valid YAML: byte {error.start} is not UTF-8", cure) from error
