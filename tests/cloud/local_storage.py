"""A local Cloud Storage for the tests: a real server on a real socket, and Google's client."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from pipeline.cloud.faults import FaultBook, parse_fault
from pipeline.cloud.storage.objects import ObjectStore
from pipeline.cloud.storage.server import StorageServer


@dataclass
class LocalStorage:
    """A local Cloud Storage with Google's client; can be stopped and started again on the same folder."""

    folder: Path
    faults: FaultBook
    server: StorageServer = field(init=False)
    client: storage.Client = field(init=False)

    def start(self, port: int = 0) -> None:
        self.store = ObjectStore(self.folder)
        self.server = StorageServer(self.store, self.faults, port)
        self.client = storage.Client(
            project="a-project",
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": self.server.url},
        )

    def stop(self) -> None:
        self.client.close()
        self.server.stop()
        self.store.close()

    def restart(self) -> None:
        port = self.server.server_port
        self.stop()
        self.start(port)

    def content(self, name: str, bucket: str = "pictures") -> bytes:
        """What the store holds, read past every server."""
        with self.store.open(bucket, name) as file:
            return file.read()

    def set_fault(self, text: str) -> None:
        self.faults.set(parse_fault(text))
