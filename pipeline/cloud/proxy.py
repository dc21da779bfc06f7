"""The proxy that leads a program's calls to Google to the local cloud, and refuses every other.

A program finds it by environment variables alone; its TLS ends here, with the local cloud's certificate.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.cloud.certificates import Certificate
from pipeline.cloud.client_hello import offered_protocols, record_length
from pipeline.cloud.hosts import host_name, service_for
from pipeline.cloud.relay import BLOCK, guarded, port_of_server, relay, tls_front

HEAD_TIMEOUT = 30.0  # seconds


@dataclass(frozen=True)
class Backend:
    """Who answers for a name: a plain HTTP server, and perhaps a gRPC server with TLS of its own."""

    http: tuple[str, int]
    grpc: tuple[str, int] | None = None


class Proxy:
    """A CONNECT proxy on loopback, with its own event loop in a thread. Close it with ``stop``."""

    def __init__(self, backends: Mapping[str, Backend], certificate: Certificate, port: int = 0) -> None:
        self._backends = backends
        self._certificate = certificate
        self._fronts: dict[str, tuple[str, int]] = {}
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._open(port), self._loop).result()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _open(self, port: int) -> int:
        for name, backend in self._backends.items():
            front = await tls_front(self._certificate, backend.http)
            self._servers.append(front)
            self._fronts[name] = ("127.0.0.1", port_of_server(front))
        server = await asyncio.start_server(guarded(self._serve), "127.0.0.1", port, limit=BLOCK)
        self._servers.append(server)
        return port_of_server(server)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_TIMEOUT)
        method, _, rest = head.decode("latin-1").partition(" ")
        address = rest.partition(" ")[0]
        host, _, port = address.rpartition(":")
        service = service_for(host) if host_name(host) else None
        if method != "CONNECT" or port != "443" or service is None or service not in self._backends:
            writer.write(refusal(method, address))
            await writer.drain()
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        hello = await asyncio.wait_for(_read_hello(reader), HEAD_TIMEOUT)
        await relay(reader, writer, self._upstream(service, hello), hello)

    def _upstream(self, service: str, hello: bytes) -> tuple[str, int]:
        """gRPC offers HTTP/2 and nothing else; anything that also speaks HTTP/1.1 gets that."""
        backend = self._backends[service]
        protocols = offered_protocols(hello)
        wants_grpc = "h2" in protocols and "http/1.1" not in protocols
        return backend.grpc if wants_grpc and backend.grpc else self._fronts[service]

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read_hello(reader: asyncio.StreamReader) -> bytes:
    """The first TLS record that a client sends."""
    head = await reader.readexactly(5)
    return head + await reader.readexactly(record_length(head))


def refusal(method: str, address: str) -> bytes:
    """What a program is told that wants to reach anything but the local cloud."""
    asked = f"{method} {address}"[:200].encode("ascii", "backslashreplace").decode()
    text = (
        f"marquee cloud run: {asked} is refused. "
        "Only Cloud Storage and Vertex AI are answered here, and nothing is passed on to the internet.\n"
    )
    headers = ["Content-Type: text/plain", f"Content-Length: {len(text)}", "Connection: close"]
    return "\r\n".join(["HTTP/1.1 403 Refused by the local cloud", *headers, "", text]).encode()
