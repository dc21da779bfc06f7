"""Every option and argument of every command, fed with hostile values: one sentence, a documented exit code.

The commands run in this process, through the edge that ``marquee`` itself uses. What would start a server or
a program, or write an archive, is a stand-in that refuses; no cloud runs, so nothing is deployed.
"""

from __future__ import annotations

import os
import signal
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import hostile_values
import pytest
import typer.core
import typer.main

from pipeline.archive.layout import SUMS, bytes_member
from pipeline.archive.writer import write_archive
from pipeline.cli import app, edge
from pipeline.errors import MarqueeError
from pipeline.progress import Silent

ROOT = Path(__file__).parents[2]
LONGEST_SECONDS = 10  # far beyond any of them; a command that waits for ever is a failure, not a hang
COMMAND = typer.main.get_command(app)  # made once: it takes longer than most commands
# They print what they found, as it is their answer, and end with 1.
REPORTS = (["doctor"], ["inspect"], ["cloud", "status"])


def commands() -> Iterator[tuple[list[str], Any]]:
    """Every command below the top one, with the words that name it."""
    found: list[tuple[list[str], Any]] = [([], COMMAND)]
    while found:
        words, command = found.pop(0)
        if inner := getattr(command, "commands", None):
            found += [([*words, name], each) for name, each in inner.items()]
        else:
            yield words, command


def parameters() -> list[Any]:
    """Each command with one of its parameters."""
    return [
        _parameter(words, parameter)
        for words, command in commands()
        for parameter in command.params
        if parameter.name != "help"
    ]


def _parameter(words: list[str], parameter: Any) -> Any:
    name = f"{' '.join(words)} {parameter.opts[0]}"
    return pytest.param(words, parameter, id=name)


USUAL = {
    "build": ["--model", str(ROOT / "model_artifacts" / "shapes"), "--out", "out/model.mar"],
    "inspect": ["--json"],
    "predict": ["--url", "http://127.0.0.1:1"],
    "image": ["--out", "out/image", "--no-build"],
    "doctor": ["--set", "archive=usual.mar"],
    "verify": ["--set", "archive=usual.mar"],
    "deploy": ["--set", "archive=usual.mar"],
    "plan": ["--set", "archive=usual.mar"],
    "serve": ["--mar", "usual.mar", "--port", "0"],
    "cloud": ["--state", "usual-state"],
}
NEEDED = {
    "predict": ["a red circle"],
    "inspect": ["usual.mar"],
    "convert": ["usual"],
    "cloud fault set": ["upload-cut"],
}


def line_of(words: list[str], parameter: Any, value: str) -> list[str]:
    """A command line that is right in everything but ``value``."""
    needed = NEEDED.get(" ".join(words), [])
    usual = list(USUAL.get(words[0], []))
    if isinstance(parameter, typer.core.TyperArgument):
        return [*words, *usual, "--", value]
    if parameter.opts[0] in usual and not parameter.multiple:
        at = usual.index(parameter.opts[0])
        del usual[at : at + 2]
    if parameter.is_flag:
        return [*words, *usual, parameter.opts[0], f"{value}", *needed]
    return [*words, *usual, f"{parameter.opts[0]}={value}", *needed]


@contextmanager
def ended_after(seconds: int) -> Iterator[None]:
    def end(*_: object) -> NoReturn:
        raise TimeoutError(f"still running after {seconds} s")

    before = {number: signal.signal(number, end) for number in (signal.SIGALRM,)}
    before |= {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)


def stand_in(*_: Any, **__: Any) -> NoReturn:
    raise MarqueeError("a stand-in: nothing starts in this test")


@pytest.fixture(scope="session")
def quick_mar(made_once: Callable[[str, Callable[[Path], object]], Path], model_mar: Path) -> Path:
    """The embedded model's archive with empty modules: the doctor reads every import of every module."""

    def write(target: Path) -> None:
        with zipfile.ZipFile(model_mar) as archive:
            names = [name for name in archive.namelist() if name != SUMS]
            members = [
                bytes_member(name, b"" if name.endswith(".py") else archive.read(name)) for name in names
            ]
        write_archive(target, members, Silent())

    return made_once("quick/model.mar", write)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_mar: Path) -> Path:
    """A folder to be in, from which nothing can be started and nothing outside is found."""
    inside = tmp_path / "a" / "b" / "c"
    (inside / "out").mkdir(parents=True)
    (inside / "usual.mar").symlink_to(quick_mar)
    monkeypatch.chdir(inside)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MARQUEE_CLOUD", str(tmp_path / "cloud"))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    for name in ("start", "serve"):
        monkeypatch.setattr(f"pipeline.cloud.process.{name}", stand_in)
    monkeypatch.setattr("pipeline.serving.torchserve.start", stand_in)
    monkeypatch.setattr("pipeline.serving.demo.run_demo", stand_in)
    monkeypatch.setattr("pipeline.doctor.examine.rehearse", lambda *_: [])
    monkeypatch.setattr("pipeline.containers.twin.prepare_twin", stand_in)
    monkeypatch.setattr("pipeline.archive.build.write_archive", stand_in)
    monkeypatch.setattr("pipeline.archive.hub.fetch", stand_in, raising=False)
    return inside


def complaint(words: list[str], code: int, out: str, err: str) -> str | None:
    """What is wrong with how a command ended; None where it is as documented."""
    if code not in (0, 1, 2):
        return f"exit code {code}: {err}"
    if "Traceback" in out + err:
        return "a traceback"
    steering = [
        one for one in out + err if unicodedata.category(one) in ("Cc", "Cf", "Cs") and one not in "\n\t"
    ]
    if steering:
        return f"characters that steer a terminal: {set(steering)}"
    errors = sum(line.startswith("error: ") for line in err.splitlines())
    if code and errors != 1 and not (words in REPORTS and out):
        return f"{errors} errors on stderr: {err!r}"
    return None


@pytest.mark.parametrize(("words", "parameter"), parameters())
def test_a_hostile_value_is_one_sentence(
    words: list[str],
    parameter: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if words == ["build"] and parameter.opts[0] not in ("--model", "--config"):
        monkeypatch.setattr("pipeline.archive.build.archive_members", lambda *_: [])
    bad = tmp_path / "bad"
    bad.mkdir()
    wrong = {}
    values = hostile_values.WORDS | hostile_values.make_files(bad)
    if getattr(parameter, "is_flag", False):  # it takes none
        values = {"a value": "true", "nothing": ""}
    for name, value in values.items():
        line = line_of(words, parameter, value)
        with ended_after(LONGEST_SECONDS):
            code = edge.run(COMMAND, line)
        if found := complaint(words, code, *capsys.readouterr()):
            wrong[name] = found
    assert not wrong


def test_the_walk_meets_every_command_and_option() -> None:
    met = {" ".join(words) for words, _ in commands()}
    assert {"build", "predict", "deploy", "cloud up", "cloud fault set"} <= met
    assert len(parameters()) > 80
    assert os.environ["MARQUEE_CLOUD"]
