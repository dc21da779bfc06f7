"""Reads YAML of plain values with limits: a small text can expand to more than fits into memory."""

from __future__ import annotations

from typing import Any

MAX_YAML_BYTES = 1 << 20
MAX_YAML_BRACKETS = 1000  # PyYAML takes quadratic time for nested ones
MAX_DEPTH = 32


class NotPlain(ValueError):
    """The text is not a YAML mapping of plain values within the limits; the message says why."""


def read_mapping(content: bytes) -> dict[str, Any]:
    """The mapping in ``content``, empty for an empty text; raises NotPlain.

    Aliases are refused, whatever they stand for, and so are more than 32 levels and more than 1 MiB.
    """
    import yaml

    if len(content) > MAX_YAML_BYTES:
        raise NotPlain(f"it has {len(content):,} bytes; at most {MAX_YAML_BYTES:,} are read")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotPlain(f"it is not readable text: byte {error.start} is not UTF-8") from error
    if text.count("[") + text.count("{") > MAX_YAML_BRACKETS:
        raise NotPlain("it has too many brackets")
    try:
        _check_events(text)
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise NotPlain(" ".join(str(error).split())[:300]) from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise NotPlain(f"it holds {type(found).__name__}, not keys with values")
    return found


def _check_events(text: str) -> None:
    """Refuse, while parsing events, documents whose values would cost much memory or time."""
    import yaml

    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise NotPlain("it uses aliases; write out what they stand for")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise NotPlain(f"it is nested more than {MAX_DEPTH} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
