"""Options that several commands share, or that belong together, reach a command as one value."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints


def grouped(**groups: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes each named parameter of a command out of options of its own.

    A group is a dataclass whose fields are annotated as typer's parameters are, each with a default; the
    command gets one value of it.
    """

    def group(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_values(**given: Any) -> None:
            for name, kind in groups.items():
                options = {field.name: given.pop(field.name) for field in dataclasses.fields(kind)}
                given[name] = kind(**options)
            command(**given)

        parameters = [
            one
            for own in inspect.signature(command, eval_str=True).parameters.values()
            for one in (_options(groups[own.name]) if own.name in groups else [own])
        ]
        with_values.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_values.__annotations__ = {one.name: one.annotation for one in parameters}
        return with_values

    return group


def _options(kind: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in dataclasses.fields(kind)
    ]
