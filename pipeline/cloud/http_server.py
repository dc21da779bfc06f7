"""What the three HTTP servers of the local cloud share: loopback, the gate, bodies, and no crash."""

from __future__ import annotations

import logging
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pipeline.cloud.body import Body, BrokenBody, ConnectionCut, body_length
from pipeline.cloud.gate import Refused, refuse_browsers, refuse_foreign_hosts
from pipeline.cloud.tokens import Tokens

LOG = logging.getLogger(__name__)
HTTP_STATUS = {"INVALID_ARGUMENT": 400, "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "INTERNAL": 500}
_REALM = 'Bearer realm="https://accounts.google.com/"'
_POLL = 0.05  # seconds; how soon a server notices that it is to stop
# So much of a refused request's body is read and forgotten, so that its sender gets to read the answer.
_DRAIN_BYTES = 1 << 30


class GatedHandler(BaseHTTPRequestHandler):
    """One connection. A server's own handler says how it answers (``respond``) and refuses (``refusal``)."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 120.0  # seconds without a byte, after which a connection is closed
    server: GatedServer

    def respond(self, body: Body) -> None:
        """Answer a request that has passed the gate; may raise Refused before the answer begins."""
        raise NotImplementedError

    def refusal(self, refused: Refused) -> tuple[str, bytes]:
        """Content type and body of a refusal, in the server's own dialect."""
        raise NotImplementedError

    def needs_token(self) -> bool:
        """Whether this request must carry the cloud's token."""
        return True

    def _serve(self) -> None:
        body: Body | None = None
        try:
            body = Body(self.rfile, self._body_length())  # type: ignore[arg-type]
            self._check()
            self.respond(body)
        except Refused as refused:
            self._refuse(refused, body)
        except ConnectionCut:
            self._reset()
        except OSError:  # the client has gone away, or was silent for too long
            self.close_connection = True
        except Exception:
            # A mistake of ours must not look to a client like a network that broke: it would try again.
            LOG.exception("%s failed", type(self).__name__)
            self.close_connection = True
            self._refuse(Refused("INTERNAL", "Internal error encountered.", "backendError"), body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve

    def _body_length(self) -> int | None:
        lengths = self.headers.get_all("Content-Length", [])
        return body_length(lengths, self.headers.get_all("Transfer-Encoding", []))

    def _check(self) -> None:
        """Raises Refused when the request is not to be answered, whatever it asks."""
        if not self.path.startswith("/"):
            raise Refused("INVALID_ARGUMENT", "The request target is not a path.")
        refuse_browsers(self.headers.items())
        refuse_foreign_hosts(self.server.service_name, self.headers.get_all("Host", []))
        if self.command == "OPTIONS":
            raise Refused("PERMISSION_DENIED", "The local cloud answers no OPTIONS request.")
        if self.needs_token():
            self.server.tokens.check(self.headers.get_all("Authorization", []))

    def _refuse(self, refused: Refused, body: Body | None) -> None:
        if body is None or isinstance(refused, BrokenBody):
            self.close_connection = True
        else:
            self._drain(body)
        kind, content = self.refusal(refused)
        try:
            self.send_response(HTTP_STATUS[refused.code])
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            if refused.code == "UNAUTHENTICATED":
                self.send_header("WWW-Authenticate", _REALM)
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content if self.command != "HEAD" else b"")
            self.wfile.flush()
        except OSError:
            self.close_connection = True

    def _drain(self, body: Body) -> None:
        """Read on to the next request, so that the sender of a large body gets to read the answer."""
        try:
            whole = body.drain(_DRAIN_BYTES)
        except (Refused, ConnectionCut, OSError):
            whole = False
        if not whole:
            self.close_connection = True

    def _reset(self) -> None:
        """End the connection as a broken network does: with a reset, not a goodbye."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Closing without shutdown: a shutdown would send a polite end first.
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Silent: a request is no event of the cloud's log, and its path may hold a session's secret."""


class GatedServer(ThreadingHTTPServer):
    """Serves on a loopback port from ``start()`` to ``stop()``; ``port`` 0 takes a free one."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, service_name: str, tokens: Tokens, handler: type[GatedHandler], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self.service_name = service_name
        self.tokens = tokens
        self.port: int = self.server_address[1]
        self._thread = threading.Thread(
            target=self.serve_forever, args=(_POLL,), name=f"{service_name}-{self.port}", daemon=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that ended badly is its client's affair; what is ours has been logged before."""
        LOG.debug("a connection ended badly", exc_info=True)
