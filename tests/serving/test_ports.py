"""Which ports a server gets, and which are refused before anything starts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import MarqueeError
from pipeline.serving.ports import choose_ports
from pipeline.serving.settings import ServeOptions


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
    with pytest.raises(MarqueeError, match=f"^{flag} {port} is not a port") as caught:
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
    assert (
        done.stdout
        == "--port 80 needs rights that this user does not have | take one above 1023: --port 8080\n"
    )


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
