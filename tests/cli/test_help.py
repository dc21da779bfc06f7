"""`marquee --help`: its sections, the version, and completion for the shell."""

from __future__ import annotations

import re
from importlib.metadata import version

import pytest

from pipeline.cli import app, edge, panels


def test_every_command_stands_in_one_section(capsys: pytest.CaptureFixture[str]) -> None:
    assert edge.run(app, ["--help"]) == 0
    said = capsys.readouterr().out
    places = [said.index(f"\n{panel}:\n") for panel in panels.ORDER]
    assert places == sorted(places)
    listed = re.findall(r"^  ([a-z]+) {2,}\S", said[places[0] :], re.MULTILINE)
    expected = {info.name or getattr(info.callback, "__name__", "") for info in app.registered_commands}
    assert sorted(listed) == sorted(expected | {"cloud"})
    assert "--install-completion" in said
    assert "Exit codes: 0 done." in said


def test_the_version_is_the_installed_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert edge.run(app, ["--version"]) == 0
    assert capsys.readouterr().out == f"marquee {version('marquee')}\n"
