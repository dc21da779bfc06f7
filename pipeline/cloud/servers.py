"""All servers of a local cloud in this process, each on the port it had before if that is free."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator

import psutil

from pipeline.cloud.faults import FaultBook, parse_fault
from pipeline.cloud.options import CloudOptions
from pipeline.cloud.state import PROJECT, CloudFolder, Running, port_of
from pipeline.errors import MarqueeError

VERTEX_PORTS = ("vertex_rest", "vertex_grpc", "dedicated")


@contextlib.contextmanager
def running_servers(folder: CloudFolder, options: CloudOptions) -> Iterator[Running]:
    """Start every server, and stop them at the end of the block. Raises MarqueeError."""
    folder.make()
    with contextlib.ExitStack() as stack:
        with _told_plainly(folder):
            running = _start(folder, options, stack)
        yield running


def _start(folder: CloudFolder, options: CloudOptions, stack: contextlib.ExitStack) -> Running:
    from pipeline.cloud.accounts import AccountsServer
    from pipeline.cloud.certificates import ensure_certificate
    from pipeline.cloud.clock import Clock
    from pipeline.cloud.credentials import account_key, write_credentials
    from pipeline.cloud.proxy import Backend, Proxy
    from pipeline.cloud.storage.objects import ObjectStore
    from pipeline.cloud.storage.server import StorageServer
    from pipeline.cloud.tokens import Keys, Tokens
    from pipeline.cloud.vertex.server import VertexPorts, start_vertex

    port = folder.free_port
    key = account_key(folder.credentials)
    keys = Keys(ensure_certificate(folder.certificates), Tokens(key))
    faults = _fault_book(folder, options)
    store = ObjectStore(folder.storage)
    stack.callback(store.close)
    storage = StorageServer(store, faults, keys.tokens, port("storage"))
    stack.callback(storage.stop)
    ports, clock = VertexPorts(*map(port, VERTEX_PORTS)), Clock(options.speed, options.date)
    vertex = start_vertex(store, folder.vertex, keys, faults, clock, ports)
    stack.callback(vertex.stop)
    accounts = AccountsServer(keys, port("accounts"))
    stack.callback(accounts.stop)
    backends = {
        "storage": Backend(loopback(storage.url)),
        "vertex": Backend(loopback(vertex.rest_url), loopback(vertex.grpc_address)),
        "accounts": Backend(loopback(accounts.url), ("127.0.0.1", accounts.grpc_port)),
    }
    proxy = Proxy(backends, keys.certificate, port("proxy"))
    stack.callback(proxy.stop)
    write_credentials(folder.credentials, f"{accounts.url}/token", key)
    return Running(
        pid=os.getpid(),
        started=psutil.Process().create_time(),
        storage=storage.url,
        vertex_rest=vertex.rest_url,
        vertex_grpc=vertex.grpc_address,
        dedicated=vertex.dedicated_address,
        proxy=proxy.url,
        accounts=accounts.url,
        ca_file=str(keys.certificate.ca_file),
        credentials_file=str(folder.credentials),
        project=PROJECT,
    )


@contextlib.contextmanager
def _told_plainly(folder: CloudFolder) -> Iterator[None]:
    """A folder that cannot be written, a full disk and a broken database are the user's to mend."""
    try:
        yield
    except OSError as error:
        raise folder.unusable(error) from None
    except sqlite3.Error as error:
        raise MarqueeError(
            f"the state folder {folder.path} cannot be used: {error}",
            cure="another --state, or delete this one; free the disk if it is full",
        ) from None


def _fault_book(folder: CloudFolder, options: CloudOptions) -> FaultBook:
    faults = FaultBook(folder.faults)
    for text in options.faults:
        faults.set(parse_fault(text))
    return faults


def loopback(address: str) -> tuple[str, int]:
    return "127.0.0.1", port_of(address)
