"""What the three HTTP servers of the local cloud share: loopback, the gate, bodies, and no crash.

Starlette and uvicorn speak HTTP. The answers are made in threads, since they wait for disks and replicas.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from dataclasses import dataclass

import uvicorn
from anyio import CapacityLimiter, to_thread
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pipeline.cloud.body import Body, BrokenBody, ConnectionCut, refuse_two_lengths
from pipeline.cloud.gate import Refused, refuse_browsers, refuse_foreign_hosts
from pipeline.cloud.http_connection import HEAD_BYTES, SILENCE, Connection, Server, reset
from pipeline.cloud.tokens import Tokens

LOG = logging.getLogger(__name__)
HTTP_STATUS = {"INVALID_ARGUMENT": 400, "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "INTERNAL": 500}
_REALM = 'Bearer realm="https://accounts.google.com/"'
# So much of a body that nobody wants is read and forgotten, so that its sender gets to read the answer.
_DRAIN_BYTES = 1 << 30
_MOST_THREADS = 512  # of a server; further requests wait for their turn
_LOOK_SECONDS = 0.5  # between two looks at whether a server that starts still lives
_STOP_SECONDS = 1  # that a request under way has to end when its server stops


@dataclass(frozen=True)
class Incoming:
    """A request. ``path`` is still percent-encoded: an object's name may hold an encoded slash."""

    method: str
    path: str
    query: str
    headers: Headers
    body: Body

    @classmethod
    def of(cls, scope: Scope, receive: Receive) -> Incoming:
        path, query = scope["raw_path"].decode("ascii"), scope["query_string"].decode("ascii")
        return cls(scope["method"], path, query, Headers(scope=scope), Body(receive))


class GatedServer:
    """Serves on a loopback port from ``start()`` to ``stop()``; ``port`` 0 takes a free one.

    A server's own class says how it answers (``respond``) and refuses (``refusal``). With ``tls`` its port
    takes plain HTTP and TLS. Raises OSError when the port is taken.
    """

    def __init__(
        self, service_name: str, tokens: Tokens, port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.service_name = service_name
        self.tokens = tokens
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._threads = CapacityLimiter(_MOST_THREADS)
        self._server = Server(_config(self._serve), tls)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._listener],), name=f"{service_name}-{self.port}", daemon=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns once connections are taken; raises RuntimeError when the server's thread ends before."""
        self._thread.start()
        while not self._server.ready.wait(_LOOK_SECONDS):
            if not self._thread.is_alive():
                self._listener.close()
                raise RuntimeError(f"the local cloud's {self.service_name} server did not start")

    def stop(self) -> None:
        """Connections end; a request under way has a second to end before them."""
        if self._thread.is_alive():
            self._server.stop()
            self._thread.join()
        self._listener.close()

    def respond(self, request: Incoming) -> Response:
        """Answer a request that has passed the gate; may raise Refused."""
        raise NotImplementedError

    def refusal(self, request: Incoming, refused: Refused) -> tuple[str, bytes]:
        """Content type and body of a refusal, in the server's own dialect."""
        raise NotImplementedError

    def needs_token(self, request: Incoming) -> bool:
        """Whether this request must carry the cloud's token."""
        return True

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        request = Incoming.of(scope, receive)
        try:
            response = await to_thread.run_sync(
                self._answer, request, abandon_on_cancel=True, limiter=self._threads
            )
            await response(scope, receive, send)
        except ConnectionCut:
            await reset(scope, receive)
        except ClientDisconnect:
            pass
        except Exception:  # an answer that cannot be sent; uvicorn closes the connection
            LOG.exception("%s failed", type(self).__name__)
            raise

    def _answer(self, request: Incoming) -> Response:
        try:
            response = self._checked_response(request)
        except BrokenBody as broken:
            return self._refused(request, broken, close=True)
        except Refused as refused:
            response = self._refused(request, refused)
        if not request.body.drain(_DRAIN_BYTES):
            response.headers["connection"] = "close"
        return response

    def _checked_response(self, request: Incoming) -> Response:
        try:
            self._check(request)
            return self.respond(request)
        except (Refused, ConnectionCut, ClientDisconnect):
            raise
        except Exception:
            # A mistake of ours must not look to a client like a network that broke: it would try again.
            LOG.exception("%s failed", type(self).__name__)
            internal = Refused("INTERNAL", "Internal error encountered.", "backendError")
            return self._refused(request, internal, close=True)

    def _check(self, request: Incoming) -> None:
        """Raises Refused when the request is not to be answered, whatever it asks."""
        refuse_two_lengths(request.headers)
        if not request.path.startswith("/"):
            raise Refused("INVALID_ARGUMENT", "The request target is not a path.")
        refuse_browsers(request.headers.items())
        refuse_foreign_hosts(self.service_name, request.headers.getlist("Host"))
        if request.method == "OPTIONS":
            raise Refused("PERMISSION_DENIED", "The local cloud answers no OPTIONS request.")
        if self.needs_token(request):
            self.tokens.check(request.headers.getlist("Authorization"))

    def _refused(self, request: Incoming, refused: Refused, close: bool = False) -> Response:
        kind, content = self.refusal(request, refused)
        response = Response(content, HTTP_STATUS[refused.code], media_type=kind)
        if refused.code == "UNAUTHENTICATED":
            response.headers["www-authenticate"] = _REALM
        if close:
            response.headers["connection"] = "close"
        return response


def _config(app: object) -> uvicorn.Config:
    """No log: a request is no event of the cloud's log, and its path may hold a session's secret."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=Connection,
        interface="asgi3",
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(SILENCE),
        timeout_graceful_shutdown=_STOP_SECONDS,
        h11_max_incomplete_event_size=HEAD_BYTES,
    )
