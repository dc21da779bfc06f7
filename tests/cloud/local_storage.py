"""A local Cloud Storage for the tests: a real server on a real socket, and Google's client."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import requests
from google.cloud import storage

from pipeline.cloud.credentials import LocalCredentials, account_key
from pipeline.cloud.faults import FaultBook, parse_fault
from pipeline.cloud.storage.objects import ObjectStore
from pipeline.cloud.storage.server import StorageServer
from pipeline.cloud.tokens import Tokens


@cache
def account_pem() -> str:
    """One account for all tests: an RSA key takes a while to make."""
    return account_key(Path("/there/is/no/such/file"))


@cache
def tokens() -> Tokens:
    return Tokens(account_pem())


def bearer(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """For ``requests``: ``auth=bearer``."""
    request.headers["Authorization"] = f"Bearer {tokens().issue()}"
    return request


@dataclass
class LocalStorage:
    """A local Cloud Storage with Google's client; can be stopped and started again on the same folder."""

    folder: Path
    faults: FaultBook
    server: StorageServer = field(init=False)
    client: storage.Client = field(init=False)

    def start(self, port: int = 0) -> None:
        self.store = ObjectStore(self.folder)
        self.server = StorageServer(self.store, self.faults, tokens(), port)
        self.client = storage.Client(
            project="a-project",
            credentials=LocalCredentials(tokens()),
            client_options={"api_endpoint": self.server.url},
        )

    def stop(self) -> None:
        self.client.close()
        self.server.stop()
        self.store.close()

    def restart(self) -> None:
        port = self.server.port
        self.stop()
        self.start(port)

    def content(self, name: str, bucket: str = "pictures") -> bytes:
        """What the store holds, read past every server."""
        with self.store.open(bucket, name) as file:
            return file.read()

    def set_fault(self, text: str) -> None:
        self.faults.set(parse_fault(text))
