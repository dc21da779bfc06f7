"""Choosing the ports of a server and refusing one that is taken, before anything starts."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack

from pipeline.errors import MarqueeError
from pipeline.serving.settings import LOOPBACK, UNREACHABLE, Ports, ServeOptions

LARGEST_PORT = 65535


def choose_ports(options: ServeOptions) -> Ports:
    """Every port the options leave at 0 becomes a free one, except the management API's, which then has none.

    Raises MarqueeError for a port that is no port, that is given twice or that another program holds, and for
    an address that is not this machine's.
    """
    if ":" in options.bind_address:  # its parser knows host:port only ("Invalid binding address")
        raise MarqueeError(
            f"TorchServe listens on IPv4 addresses only, not on {options.bind_address}",
            "take --bind 127.0.0.1, or 0.0.0.0 for every network",
        )
    given = {
        "--port": options.port,
        "--management-port": options.management_port,
        "--metrics-port": options.metrics_port,
    }
    _check_given(given)
    grpc = grpc_address()
    with ExitStack() as held:  # all are held until all are known, so that none is chosen twice
        return Ports(
            inference=_bind(held, "--port", options.bind_address, options.port),
            management=_bind(held, "--management-port", LOOPBACK, options.management_port)
            if options.management_port
            else None,
            metrics=_bind(held, "--metrics-port", LOOPBACK, options.metrics_port),
            grpc_inference=_bind(held, "", grpc, 0),
            grpc_management=_bind(held, "", grpc, 0),
            grpc_address=grpc,
        )


def _check_given(given: dict[str, int]) -> None:
    for flag, port in given.items():
        if not 0 <= port <= LARGEST_PORT:
            raise MarqueeError(
                f"{flag} {port} is not a port", f"take one from 1 to {LARGEST_PORT}, or 0 for any free one"
            )
    for port in given.values():
        twice = [other for other in given if given[other] == port]
        if port and len(twice) > 1:
            raise MarqueeError(
                f"{' and '.join(twice)} are both {port}; every port of a server differs from the others",
                f"take another with {twice[-1]}, or leave it out",
            )


def grpc_address() -> str:
    """The address for TorchServe's gRPC servers, which marquee does not use and cannot switch off.

    A broadcast address can be bound on Linux, and no connection can be made to it (ENETUNREACH). Where it
    cannot be bound (gVisor), they listen on loopback.
    """
    with socket.socket() as listener:
        try:
            listener.bind((UNREACHABLE, 0))
        except OSError:
            return LOOPBACK
    return UNREACHABLE


def _bind(held: ExitStack, flag: str, address: str, port: int) -> int:
    listener = held.enter_context(socket.socket())
    # TorchServe sets it too: a port in TIME_WAIT after an earlier server is free, a listening one is not.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
    except PermissionError as error:
        raise MarqueeError(
            f"{flag} {port} needs rights that this user does not have", f"take one above 1023: {flag} 8080"
        ) from error
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise MarqueeError(
                f"this machine cannot listen on {address}: {error.strerror or error}",
                "take --bind 127.0.0.1, or 0.0.0.0 for every network",
            ) from error
        raise MarqueeError(
            f"port {port} on {address} is taken{_holder(port)}",
            f"take another with {flag}, or 0 for any free one",
        ) from error
    return int(listener.getsockname()[1])


def _holder(port: int) -> str:
    import psutil

    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return ""
    for connection in connections:
        listens = connection.status == psutil.CONN_LISTEN
        if listens and connection.laddr[1:] == (port,) and connection.pid:
            return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""
