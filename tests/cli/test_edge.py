"""The messages and the exit codes of failing commands."""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import typer

from pipeline.cli import app, edge
from pipeline.cli.console import LiveProgress
from pipeline.errors import MarqueeError


def marquee(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", *arguments]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": 100, **options}
    return subprocess.run(command, check=False, **options)


def run(body: Callable[[], object], *arguments: str) -> int:
    """One command that does ``body``, through the edge."""
    application = typer.Typer(rich_markup_mode=None)

    @application.command()
    def command(words: list[str]) -> None:
        body()

    return edge.run(application, list(arguments) or ["x"])


def raising(error: BaseException) -> Callable[[], NoReturn]:
    def body() -> NoReturn:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (MarqueeError("it is wrong", "do it right"), 1, "error: it is wrong\n  cure: do it right\n"),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(5), 5, ""),
        (SystemExit("words"), 1, "error: words\n"),
        (typer.Exit(3), 3, ""),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            "error: a file cannot be written: No space left on device\n  cure: free some space\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x"),
            1,
            "error: /x cannot be used: Permission denied\n  cure: check the path and its permissions\n",
        ),
    ],
)
def test_each_way_to_end_has_its_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raising(error)) == code
    assert capsys.readouterr().err == said


def test_a_fault_of_our_own_is_one_sentence_and_a_private_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    token, prompt = "ya29." + "s3cret", "a very " + "private prompt"

    def body() -> None:
        try:
            raise ValueError(f"Bearer {token}, {token}")
        except ValueError as cause:
            raise KeyError(prompt) from cause

    assert run(body, prompt) == 70
    out, err = capsys.readouterr()
    assert out == ""
    found = re.fullmatch(
        r"error: this is a fault of marquee's own \(KeyError: '<argument>'\)\n  cure: report it with (.+)\n",
        err,
    )
    assert found
    log = Path(found[1])
    assert log.is_relative_to(tmp_path)
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    text = log.read_text()
    assert "test_edge.py" in text
    assert "ValueError" in text
    assert "KeyError" in text
    assert prompt not in text
    assert token not in text


def test_a_log_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "file"
    nowhere.write_bytes(b"")
    monkeypatch.setenv("HOME", str(nowhere))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(nowhere))
    assert run(raising(RecursionError())) == 70
    assert "could not be written" in capsys.readouterr().err


def test_control_characters_are_written_out_whoever_prints_them(capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        print("out \x1b[31m\x9b2J \u202e\udcff [red]é[/red]")
        raise MarqueeError("bad \x07 thing", "\x1b]0;owned\x07")

    assert run(body) == 1
    out, err = capsys.readouterr()
    assert out == "out \\x1b[31m\\x9b2J \\u202e\\udcff [red]é[/red]\n"
    assert err == "error: bad \\x07 thing\n  cure: \\x1b]0;owned\\x07\n"


def test_a_progress_bar_shows_names_and_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    progress = LiveProgress()
    progress.start("writing [red]a\x1b[2J[/nonsense]", 10)
    progress.note("note [bold]\x1b[2J")
    progress.finish()
    assert "writing [red]a\\x1b[2J[/nonsense]" in shown.getvalue()
    assert "note [bold]\\x1b[2J" in shown.getvalue()


def test_the_help_documents_the_exit_codes() -> None:
    done = marquee("--help")
    words = " ".join(done.stdout.split())
    assert done.returncode == 0
    for code in ("0 done", "1 an error", "2 the command line", "70 a fault", "130 Ctrl-C", "141 the reader"):
        assert code in words


def test_a_wrong_command_line_is_one_sentence_with_its_help() -> None:
    done = marquee("predict", "x", "--steps", "many")
    assert done.returncode == 2
    assert done.stderr.startswith("error: Invalid value for '--steps'")
    assert done.stderr.endswith("\n  cure: marquee predict --help\n")
    assert len(done.stderr.splitlines()) == 2


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = marquee("cloud", "fault", "list", stdout=writing)
    finally:
        os.close(writing)
    assert done.returncode == 141
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", [["cloud", "fault", "list"], ["--help"]])
def test_a_full_disk_under_the_output_is_one_sentence(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = marquee(*arguments, stdout=full)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the output cannot be written: No space left on device\n")
    assert "Traceback" not in done.stderr


def test_a_terminal_that_knows_no_letters_gets_them_written_out(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = marquee("inspect", str(tmp_path / "é"), env=environment)
    assert done.returncode == 1
    assert "\\xe9" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_with_130_and_says_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "started")
    program = f"open({str(tmp_path / 'started')!r}, 'w').close(); import time; time.sleep(60)"
    body = f"""
import signal, sys, typer
from pipeline.cli import edge
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background ignores it
app = typer.Typer(rich_markup_mode=None)
@app.command()
def wait():
    {program}
sys.exit(edge.run(app, []))
"""
    with subprocess.Popen([sys.executable, "-c", body], stderr=subprocess.PIPE, text=True) as process:
        (tmp_path / "started").read_bytes()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_the_application_itself_goes_through_the_edge() -> None:
    assert edge.run(app, ["nonsense"]) == 2
