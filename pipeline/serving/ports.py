"""Choosing the five ports of a server and refusing one that is taken, before anything starts."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack

from pipeline.errors import MarqueeError
from pipeline.serving.settings import Ports, ServeOptions


def choose_ports(options: ServeOptions) -> Ports:
    """Every port the options leave at 0 becomes a free one; all five differ.

    Raises MarqueeError for a port that another program holds and for an address that is not this machine's.
    """
    if ":" in options.bind_address:  # its parser knows host:port only ("Invalid binding address")
        raise MarqueeError(
            f"TorchServe listens on IPv4 addresses only, not on {options.bind_address}",
            "take --bind 127.0.0.1, or 0.0.0.0 for every network",
        )
    wanted = (
        ("--port", options.bind_address, options.port),
        ("--management-port", "127.0.0.1", options.management_port),
        ("--metrics-port", "127.0.0.1", options.metrics_port),
        ("", "127.0.0.1", 0),
        ("", "127.0.0.1", 0),
    )
    with ExitStack() as held:  # all are held until all are known, so that none is chosen twice
        return Ports(*(_bind(held, flag, address, port) for flag, address, port in wanted))


def _bind(held: ExitStack, flag: str, address: str, port: int) -> int:
    listener = held.enter_context(socket.socket())
    # TorchServe sets it too: a port in TIME_WAIT after an earlier server is free, a listening one is not.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
    except PermissionError as error:
        raise MarqueeError(
            f"port {port} needs rights this user has not", f"take one above 1023: {flag} 8080"
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
