"""A model hub on loopback with the routes that huggingface_hub calls, and connections that break."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REPOSITORY = "someone/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TAG = "v1"


@dataclass
class Hub:
    """One repository. ``cut_after`` breaks a file's downloads after so many bytes, ``cuts_left`` times.

    ``then_refuse`` answers 404 to downloads of such files once no cuts are left. ``ignores_ranges`` sends
    the whole file to whoever asks for a part, as a content network may.
    """

    folder: Path
    cut_after: dict[str, int] = field(default_factory=dict)
    cuts_left: int = 0
    then_refuse: bool = False
    ignores_ranges: bool = False
    downloads: list[tuple[str, str | None]] = field(default_factory=list)
    revisions: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def loopback_hub(folder: Path) -> Iterator[Hub]:
    """Serve the files of ``folder`` as someone/tiny until the block ends."""
    hub = Hub(folder)

    class Handler(HubHandler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class HubHandler(BaseHTTPRequestHandler):
    """GET /api/models/ID[/revision/REV] and HEAD and GET /ID/resolve/REV/PATH, with ranges."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(send_body=False)

    def do_GET(self) -> None:
        self._answer(send_body=True)

    def log_message(self, *_: object) -> None: ...

    def _answer(self, send_body: bool) -> None:
        path = self.path.partition("?")[0]
        api = re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(?:/revision/(.+))?", path)
        resolve = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", path)
        found = api or resolve
        if found is None or found[1] != REPOSITORY:
            self._error(401, "RepoNotFound")  # so the real hub answers for what does not exist
        elif found[2] not in (None, "main", TAG, COMMIT):
            self._error(404, "RevisionNotFound")
        elif api:
            self.hub.revisions.append(found[2] or "main")
            self._json(self._repository())
        else:
            self._file(found[3], send_body)

    def _repository(self) -> dict[str, object]:
        files = sorted(path for path in self.hub.folder.rglob("*") if path.is_file())
        siblings = [
            {"rfilename": path.relative_to(self.hub.folder).as_posix(), "size": path.stat().st_size}
            for path in files
        ]
        return {"id": REPOSITORY, "modelId": REPOSITORY, "sha": COMMIT, "siblings": siblings, "tags": []}

    def _file(self, name: str, send_body: bool) -> None:
        content = (self.hub.folder / name).read_bytes()
        asked = None if self.hub.ignores_ranges else self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        if send_body:
            self.hub.downloads.append((name, asked))
        if name in self.hub.cut_after and self.hub.then_refuse and not self.hub.cuts_left:
            self._error(404, "EntryNotFound")
            return
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if not send_body:
            return
        body = content[start:]
        if name in self.hub.cut_after and self.hub.cuts_left:
            self.hub.cuts_left -= 1
            body = body[: self.hub.cut_after[name]]
            self.close_connection = True
        self.wfile.write(body)

    def _json(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
