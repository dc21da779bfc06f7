"""A whole local cloud whose servers run in this process, spoken to over plain sockets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from plain_http import Answer, request, send

from pipeline.cloud.credentials import local_credentials
from pipeline.cloud.state import CloudFolder, Running

LOCATION = "projects/marquee-local/locations/us-central1"


@cache
def bearer(credentials_file: Path) -> str:
    credentials = local_credentials(credentials_file)
    credentials.refresh(None)
    return f"Bearer {credentials.token}"


@dataclass(frozen=True)
class Standing:
    """A cloud whose servers run in this process."""

    folder: CloudFolder
    running: Running

    def send(self, service: str, content: bytes) -> Answer:
        return send(getattr(self.running, service), content)

    @property
    def bearer(self) -> str:
        return bearer(Path(self.running.credentials_file))

    def call(self, service: str, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """An allowed call; a body that is not bytes is sent as JSON."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        given = {"Authorization": self.bearer, "Content-Type": "application/json", **headers}
        return self.send(service, request(method, path, content, **given))
