"""What is decided and checked before anything starts: ports, files, environment, disk, memory, archive."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from pipeline.errors import MarqueeError
from pipeline.serving.environment import _environment
from pipeline.serving.launch_files import config_properties, write_launch_files
from pipeline.serving.memory import MEBIBYTE, heap_bytes, total_memory, unused_memory
from pipeline.serving.ports import choose_ports
from pipeline.serving.preflight import (
    ArchiveFacts,
    check_archive,
    check_folder,
    check_machine,
    worker_count,
)
from pipeline.serving.readiness import warm_up_instance
from pipeline.serving.settings import Ports, ServeOptions

PORTS = Ports(1, 2, 3, 4, 5)


def write_mar(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def manifest(handler: str) -> bytes:
    return json.dumps({"model": {"modelName": "model", "handler": handler}}).encode()


def test_free_ports_that_differ() -> None:
    chosen = choose_ports(ServeOptions(management_port=0))
    assert chosen.management is None  # a Unix socket instead
    ports = {chosen.inference, chosen.metrics, chosen.grpc_inference, chosen.grpc_management}
    assert len(ports) == 4
    assert min(ports) > 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("--port", "--management-port"),
        ("--port", "--metrics-port"),
        ("--management-port", "--metrics-port"),
    ],
)
@pytest.mark.parametrize("bind", ["127.0.0.1", "0.0.0.0", "127.0.0.2"])
def test_one_port_for_two_servers_is_refused(one: str, other: str, bind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ServeOptions(bind_address=bind, **{field_of(flag): port for flag in (one, other)})
    with pytest.raises(MarqueeError, match=rf"^{one} and {other} are both {port}; every port") as caught:
        choose_ports(options)
    assert other in str(caught.value.cure)


@pytest.mark.parametrize("port", [-1, 65536, 10**9])
@pytest.mark.parametrize("flag", ["--port", "--management-port", "--metrics-port"])
def test_what_is_no_port_is_refused(flag: str, port: int) -> None:
    with pytest.raises(MarqueeError, match=f"^{flag} {port} is no port") as caught:
        choose_ports(ServeOptions(**{field_of(flag): port}))
    assert "from 1 to 65535" in str(caught.value.cure)


def test_a_privileged_port_is_refused_by_its_flag() -> None:
    code = (
        "import os, sys; from pipeline.serving.ports import choose_ports;"
        "from pipeline.serving.settings import ServeOptions;"
        "os.setuid(65534) if os.getuid() == 0 else None\n"
        "try: choose_ports(ServeOptions(port=80))\n"
        "except Exception as error: print(error, '|', error.cure)"
    )
    least = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if least <= 80:
        pytest.skip(f"anybody may listen on ports from {least} here")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "--port 80 needs rights this user has not | take one above 1023: --port 8080\n"


def test_nobody_can_connect_to_the_grpc_servers() -> None:
    chosen = choose_ports(ServeOptions())
    with socket.socket() as listener:
        listener.bind((chosen.grpc_address, chosen.grpc_management))
        listener.listen()
        for address in ("127.0.0.1", chosen.grpc_address):
            with socket.socket() as caller:
                assert caller.connect_ex((address, chosen.grpc_management)) != 0


def field_of(flag: str) -> str:
    return flag.strip("-").replace("-", "_")


@pytest.mark.parametrize("flag", ["--port", "--management-port", "--metrics-port"])
def test_a_taken_port_is_named_with_its_holder(flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = ServeOptions(**{field_of(flag): port})
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
    closed = config_properties(ServeOptions(), replace(PORTS, management=None), tmp_path)
    assert f"\nmanagement_address=unix:{tmp_path}/control/management.sock\n" in closed
    assert (properties["allowed_urls"], properties["workflow_store"]) == ("none", "/dev/null")
    assert re.search(r" -Xmx\d+m$", properties["vmargs"])
    assert properties["disable_token_authorization"] == "true"
    assert properties["service_envelope"] == "json"
    assert properties["load_models"] == "model=model.mar"


def test_no_envelope_is_no_line(tmp_path: Path) -> None:
    assert "service_envelope" not in config_properties(ServeOptions(service_envelope=None), PORTS, tmp_path)


def test_the_archive_is_linked_and_an_earlier_runs_logs_are_gone(tmp_path: Path) -> None:
    mar = write_mar(tmp_path / "some.mar", {})
    (tmp_path / "work" / "logs").mkdir(parents=True)
    (tmp_path / "work" / "logs" / "ts_log.log").write_text("Retry worker: 9000")
    write_launch_files(ServeOptions(), PORTS, mar, tmp_path / "work")
    assert (tmp_path / "work" / "model-store" / "model.mar").resolve() == mar
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


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_one_flipped_bit_in_the_weights_is_refused(tmp_path: Path, compression: int) -> None:
    with zipfile.ZipFile(tmp_path / "m.mar", "w", compression) as archive:
        archive.writestr("MAR-INF/MANIFEST.json", manifest("h.py"))
        archive.writestr("h.py", b"")
        archive.writestr("model/unet/x.safetensors", os.urandom(4096))
        offset = archive.getinfo("model/unet/x.safetensors").header_offset
    damaged = bytearray((tmp_path / "m.mar").read_bytes())
    damaged[offset + 2000] ^= 1
    (tmp_path / "m.mar").write_bytes(damaged)
    with pytest.raises(MarqueeError, match=r"is damaged: model/unet/x.safetensors does not fit its checksum"):
        check_archive(tmp_path / "m.mar")


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


@pytest.mark.parametrize(
    ("total", "heap"), [(2**30, 384), (8 * 2**30, 512), (24 * 2**30, 1536), (64 * 2**30, 2048)]
)
def test_javas_heap_is_a_share_of_the_memory(total: int, heap: int) -> None:
    assert heap_bytes(total) == heap * MEBIBYTE


def test_a_containers_limit_is_its_memory(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    assert total_memory(tmp_path) == 1_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert total_memory(tmp_path) == total_memory(tmp_path / "no cgroup v2") > 2**28


def with_settings(path: Path, settings: str) -> Path:
    named = json.dumps({"model": {"handler": "h.py", "configFile": "model-config.yaml"}}).encode()
    members = {"MAR-INF/MANIFEST.json": named, "h.py": b"", "model-config.yaml": settings.encode()}
    return write_mar(path / "m.mar", members)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("minWorkers: 1000\nmaxWorkers: 1000", "asks for minWorkers: 1000; a whole number from 1 to"),
        ("minWorkers: 0", "minWorkers: 0;"),
        ("minWorkers: -1", "minWorkers: -1;"),
        ("minWorkers: yes", "minWorkers: True;"),
        ("minWorkers: many", "minWorkers: 'many';"),
        ("maxWorkers: 1000", "maxWorkers: 1000;"),
        ("minWorkers: 2\nmaxWorkers: 1", "minWorkers: 2 and maxWorkers: 1, which is less"),
        ("minWorkers: [", "is not readable YAML"),
        ("#" * 2**21, "has 2,097,152 bytes, 1,048,576 at most"),
    ],
)
def test_workers_that_this_machine_cannot_have_are_refused(tmp_path: Path, settings: str, words: str) -> None:
    with pytest.raises(MarqueeError, match=re.escape(words)) as caught:
        check_archive(with_settings(tmp_path, settings))
    assert caught.value.cure


def test_every_worker_needs_memory_of_its_own(tmp_path: Path) -> None:
    two = check_archive(with_settings(tmp_path, "minWorkers: 2\nmaxWorkers: 2"))
    assert two.workers == 2
    check_machine(two, available_bytes=2**31)
    with pytest.raises(MarqueeError, match=r"needs about 1,220 MiB of memory for its 2 workers"):
        check_machine(two, available_bytes=2**30)
    assert worker_count({"minWorkers": 40, "maxWorkers": 40}, tmp_path, cores=32) == 40


@pytest.mark.parametrize(
    ("answer", "prompt", "steps"),
    [
        (
            {"predictions": [{"limits": {"max_num_inference_steps": 1, "max_prompt_characters": 4}}]},
            "warm",
            1,
        ),
        (
            {"predictions": [{"limits": {"max_num_inference_steps": 9, "max_prompt_characters": 9}}]},
            "warm up",
            2,
        ),
        ({"predictions": ["an archive that does not describe itself"]}, "warm up", 2),
        (["no JSON object"], "warm up", 2),
    ],
)
def test_the_warm_up_stays_within_the_archives_limits(answer: object, prompt: str, steps: int) -> None:
    instance = warm_up_instance(httpx.Response(200, json=answer))
    assert (instance["prompt"], instance["num_inference_steps"]) == (prompt, steps)
