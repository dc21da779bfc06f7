"""What is decided and checked before anything starts: ports, files, environment, disk, memory, archive."""

from __future__ import annotations

import json
import os
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import MarqueeError
from pipeline.serving.environment import _environment
from pipeline.serving.launch_files import config_properties, write_launch_files
from pipeline.serving.preflight import (
    ArchiveFacts,
    check_archive,
    check_folder,
)
from pipeline.serving.settings import Ports, ServeOptions

PORTS = Ports(1, 2, 3, 4, 5)


def write_mar(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def manifest(handler: str) -> bytes:
    return json.dumps({"model": {"modelName": "model", "handler": handler}}).encode()


def test_the_configuration_is_private_and_quiet(tmp_path: Path) -> None:
    text = config_properties(ServeOptions(bind_address="0.0.0.0"), PORTS, tmp_path, tmp_path)
    properties = dict(line.split("=", 1) for line in text.splitlines())
    assert properties["inference_address"] == "http://0.0.0.0:1"
    assert properties["management_address"] == "http://127.0.0.1:2"
    closed = config_properties(ServeOptions(), replace(PORTS, management=None), tmp_path, tmp_path / "s")
    assert f"\nmanagement_address=unix:{tmp_path}/s/management.sock\n" in closed
    assert (properties["allowed_urls"], properties["workflow_store"]) == ("none", "/dev/null")
    assert re.search(r" -Xmx\d+m$", properties["vmargs"])
    assert properties["disable_token_authorization"] == "true"
    assert properties["service_envelope"] == "json"
    assert properties["load_models"] == "model=model.mar"


def test_no_envelope_is_no_line(tmp_path: Path) -> None:
    options = ServeOptions(service_envelope=None)
    assert "service_envelope" not in config_properties(options, PORTS, tmp_path, tmp_path)


def test_the_archive_is_copied_and_an_earlier_runs_logs_are_gone(tmp_path: Path) -> None:
    mar = write_mar(tmp_path / "some.mar", {"MAR-INF/MANIFEST.json": manifest("h.py"), "h.py": b""})
    (tmp_path / "work" / "logs").mkdir(parents=True)
    (tmp_path / "work" / "logs" / "ts_log.log").write_text("Retry worker: 9000")
    write_launch_files(ServeOptions(foreign=True), PORTS, mar, tmp_path / "work", tmp_path / "sockets")
    copy = tmp_path / "work" / "model-store" / "model.mar"
    assert copy.read_bytes() == mar.read_bytes()
    assert not copy.samefile(mar)
    assert list((tmp_path / "work" / "logs").iterdir()) == []


def test_only_named_variables_reach_the_server(tmp_path: Path) -> None:
    inherited = {"PATH": "/bin", "PYTHONPATH": "/evil", "TS_CONFIG_FILE": "/evil", "HF_TOKEN": "secret"}
    options = ServeOptions(threads=3, environment={"AIP_HTTP_PORT": "8080"})
    environment = _environment(inherited, options, tmp_path, tmp_path / "temp", tmp_path / "drain-x")
    assert environment["PATH"] == "/bin"
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["GOMP_SPINCOUNT"] == "10000"
    assert environment["TEMP"] == environment["TMPDIR"] == str(tmp_path / "temp")
    assert environment["AIP_HTTP_PORT"] == "8080"
    assert not {"PYTHONPATH", "TS_CONFIG_FILE", "HF_TOKEN"} & environment.keys()
    assert (Path(environment["JAVA_HOME"]) / "bin" / "java").exists()


def test_an_archive_is_measured(tmp_path: Path) -> None:
    members = {"MAR-INF/MANIFEST.json": manifest("h.py"), "h.py": b"12", "model/unet/x.safetensors": b"123"}
    facts = check_archive(write_mar(tmp_path / "m.mar", members))
    assert facts.weight_bytes == 3
    assert facts.unpacked_bytes == 5 + len(members["MAR-INF/MANIFEST.json"])


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({}, "no model archive"),
        ({"MAR-INF/MANIFEST.json": b"{"}, "no model archive"),
        ({"MAR-INF/MANIFEST.json": b"[]"}, "names no handler"),
        ({"MAR-INF/MANIFEST.json": manifest("h.py")}, "handler h.py, which is not in it"),
    ],
)
def test_a_zip_that_is_no_archive_is_refused(tmp_path: Path, members: dict[str, bytes], words: str) -> None:
    with pytest.raises(MarqueeError, match=words):
        check_archive(write_mar(tmp_path / "m.mar", members))


def test_a_missing_or_cut_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MarqueeError, match="there is no archive at"):
        check_archive(tmp_path / "m.mar")
    whole = write_mar(tmp_path / "m.mar", {"MAR-INF/MANIFEST.json": manifest("h.py"), "h.py": b"x" * 1000})
    whole.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(MarqueeError, match="not a readable archive"):
        check_archive(whole)


def test_too_little_disk_is_named_with_both_sizes(tmp_path: Path) -> None:
    huge = ArchiveFacts(tmp_path / "m.mar", unpacked_bytes=2**60, weight_bytes=0)
    with pytest.raises(MarqueeError, match=r"needs [\d,]+ MiB of disk, .* has [\d,]+ MiB"):
        check_folder(tmp_path, huge)


def test_a_folder_that_executes_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(tmp_path)
    noexec = os.statvfs_result((*real[:8], real.f_flag | os.ST_NOEXEC, real.f_namemax))
    monkeypatch.setattr(os, "statvfs", lambda _: noexec)  # mounting one needs root
    with pytest.raises(MarqueeError, match="mounted noexec"):
        check_folder(tmp_path, ArchiveFacts(tmp_path, 0, 0))
