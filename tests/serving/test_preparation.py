"""What is decided and checked before anything starts: ports, files, environment, disk, memory, archive."""

from __future__ import annotations

import json
import os
import socket
import zipfile
from dataclasses import astuple
from pathlib import Path

import pytest

from pipeline.errors import MarqueeError
from pipeline.serving.environment import _environment
from pipeline.serving.launch_files import config_properties, write_launch_files
from pipeline.serving.ports import choose_ports
from pipeline.serving.preflight import ArchiveFacts, check_archive, check_folder, check_machine, unused_memory
from pipeline.serving.settings import Ports, ServeOptions

PORTS = Ports(1, 2, 3, 4, 5)


def write_mar(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def manifest(handler: str) -> bytes:
    return json.dumps({"model": {"modelName": "model", "handler": handler}}).encode()


def test_five_free_ports_that_differ() -> None:
    ports = astuple(choose_ports(ServeOptions()))
    assert len(set(ports)) == 5
    assert min(ports) > 0


@pytest.mark.parametrize("flag", ["--port", "--management-port", "--metrics-port"])
def test_a_taken_port_is_named_with_its_holder(flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = ServeOptions(**{flag.strip("-").replace("-", "_"): port})
        with pytest.raises(MarqueeError, match=rf"port {port} .* taken by process {os.getpid()}") as caught:
            choose_ports(options)
    assert flag in str(caught.value.cure)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("192.0.2.1", "cannot listen on 192.0.2.1: Cannot assign requested address"),
        ("no.such.host.invalid", "cannot listen on no.such.host.invalid: "),
        ("::1", "IPv4 addresses only, not on ::1"),
    ],
)
def test_an_address_that_cannot_be_had_is_not_called_taken(address: str, words: str) -> None:
    with pytest.raises(MarqueeError, match=words) as caught:
        choose_ports(ServeOptions(bind_address=address))
    assert "--bind" in str(caught.value.cure)


def test_the_configuration_is_private_and_quiet(tmp_path: Path) -> None:
    text = config_properties(ServeOptions(bind_address="0.0.0.0"), PORTS, tmp_path)
    properties = dict(line.split("=", 1) for line in text.splitlines())
    assert properties["inference_address"] == "http://0.0.0.0:1"
    assert properties["management_address"] == "http://127.0.0.1:2"
    assert properties["disable_token_authorization"] == "true"
    assert properties["service_envelope"] == "json"
    assert properties["load_models"] == "model=model.mar"


def test_no_envelope_is_no_line(tmp_path: Path) -> None:
    assert "service_envelope" not in config_properties(ServeOptions(service_envelope=None), PORTS, tmp_path)


def test_the_archive_is_copied_and_an_earlier_runs_logs_are_gone(tmp_path: Path) -> None:
    mar = write_mar(tmp_path / "some.mar", {"MAR-INF/MANIFEST.json": manifest("h.py"), "h.py": b""})
    (tmp_path / "work" / "logs").mkdir(parents=True)
    (tmp_path / "work" / "logs" / "ts_log.log").write_text("Retry worker: 9000")
    write_launch_files(ServeOptions(foreign=True), PORTS, mar, tmp_path / "work")
    copy = tmp_path / "work" / "model-store" / "model.mar"
    assert copy.read_bytes() == mar.read_bytes()
    assert not copy.samefile(mar)
    assert list((tmp_path / "work" / "logs").iterdir()) == []


def test_only_named_variables_reach_the_server(tmp_path: Path) -> None:
    inherited = {"PATH": "/bin", "PYTHONPATH": "/evil", "TS_CONFIG_FILE": "/evil", "HF_TOKEN": "secret"}
    options = ServeOptions(threads=3, environment={"AIP_HTTP_PORT": "8080"})
    environment = _environment(inherited, options, tmp_path, tmp_path / "drain-x")
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


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MarqueeError, match="too long for a Unix socket"):
        check_folder(tmp_path / ("x" * 100), ArchiveFacts(tmp_path, 0, 0))


def test_too_little_memory_is_named() -> None:
    archive = ArchiveFacts(Path("m.mar"), unpacked_bytes=0, weight_bytes=2**30)
    check_machine(archive, available_bytes=3 * 2**30)
    with pytest.raises(MarqueeError, match=r"needs about 2,848 MiB of memory, 2,048 MiB are free"):
        check_machine(archive, available_bytes=2 * 2**30)


def test_page_cache_counts_as_free_in_a_container(tmp_path: Path) -> None:
    stat = "anon 300\nfile 650\nactive_file 200\ninactive_file 400\nshmem 50\n"
    for name, text in {"memory.max": "1000\n", "memory.current": "950\n", "memory.stat": stat}.items():
        (tmp_path / name).write_text(text)
    assert unused_memory(tmp_path) == 650
    (tmp_path / "memory.max").write_text("max\n")
    assert unused_memory(tmp_path) is None
    assert unused_memory(tmp_path / "no cgroup v2") is None
