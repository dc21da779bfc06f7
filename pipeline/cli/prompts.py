"""The prompts as they were typed: several words without quotes are one prompt that the shell has split."""

from __future__ import annotations

import shlex
import sys

import typer

from pipeline.errors import MarqueeError


def meant_prompts(typed: list[str]) -> list[str]:
    """One prompt a picture. Where every one of several is a single word, a person at a terminal is asked.

    Raises MarqueeError with the quoted command where nobody can be asked.
    """
    if len(typed) < 2 or any(len(prompt.split()) != 1 for prompt in typed):
        return typed
    one = " ".join(typed)
    if not sys.stdin.isatty():
        raise MarqueeError(
            f"{len(typed)} prompts of one word each would become {len(typed)} pictures; is it one prompt?",
            f"marquee predict {shlex.quote(one)}, or one command for each word's picture",
        )
    return [one] if typer.confirm(f"Draw one picture of {one!r}?", default=True, err=True) else typed
