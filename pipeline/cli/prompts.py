"""Recognises a prompt without quotes, which the shell has split into words."""

from __future__ import annotations

import shlex
import sys

import typer

from pipeline.errors import MarqueeError


def meant_prompts(typed: list[str]) -> list[str]:
    """One prompt for each picture. Where all of several are single words, the user at a terminal is asked.

    Raises MarqueeError with the quoted command where there is no terminal.
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
