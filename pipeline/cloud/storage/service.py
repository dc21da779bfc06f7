"""Shared by the three APIs: the store, the running uploads, and the faults that are set."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.cloud.faults import FaultBook
from pipeline.cloud.storage.errors import StorageError
from pipeline.cloud.storage.exchange import Request
from pipeline.cloud.storage.objects import ObjectStore
from pipeline.cloud.storage.parts import PartUploads
from pipeline.cloud.storage.resumable import ResumableUploads

REFUSALS = {
    "storage-permission-denied": StorageError(
        403, "forbidden", "The caller does not have permission (or the resource may not exist): {target}"
    ),
    "storage-too-many-requests": StorageError(
        429,
        "rateLimitExceeded",
        "The object {target} exceeded the rate limit. Please reduce your request rate.",
    ),
    "storage-unavailable": StorageError(
        503, "backendError", "We encountered an internal error. Please try again."
    ),
}


@dataclass(frozen=True)
class Service:
    store: ObjectStore
    resumable: ResumableUploads
    parts: PartUploads
    faults: FaultBook

    def refuse_if_asked(self, bucket: str, name: str = "") -> None:
        """Raise the StorageError of a fault that is set for this bucket or object."""
        place = f"{bucket}/{name}" if name else bucket
        for fault, refusal in REFUSALS.items():
            if self.faults.take(fault, place):
                raise StorageError(refusal.status, refusal.reason, refusal.message.format(target=place))

    def cut_if_asked(self, request: Request, bucket: str, name: str) -> None:
        """Let the body's connection break if the fault ``upload-cut`` is set for this object."""
        fault = self.faults.take("upload-cut", f"{bucket}/{name}")
        if fault:
            request.body.cut_after = int(fault.parameters["after_bytes"])
