"""`marquee predict` of a prompt without quotes: the shell has split it into words."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

PREDICT = [sys.executable, "-m", "pipeline", "predict", "--url", "http://127.0.0.1:9"]


def test_words_without_quotes_are_refused_with_the_quoted_command() -> None:
    done = subprocess.run(
        [*PREDICT, "a", "red", "circle"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "3 prompts of one word each" in done.stderr
    assert "cure: marquee predict 'a red circle'" in done.stderr


@pytest.mark.parametrize("prompts", [("circle",), ("a red circle", "star")])
def test_other_prompts_are_sent_as_they_are(prompts: tuple[str, ...]) -> None:
    done = subprocess.run([*PREDICT, *prompts], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert "one word each" not in done.stderr
    assert "127.0.0.1:9" in done.stderr


def test_a_person_at_a_terminal_is_asked() -> None:
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"y\n")
        done = subprocess.run([*PREDICT, "a", "star"], stdin=theirs, capture_output=True, text=True)
    finally:
        os.close(ours)
        os.close(theirs)
    assert "Draw one picture of 'a star'?" in done.stderr + done.stdout
    assert "127.0.0.1:9" in done.stderr
