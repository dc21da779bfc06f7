"""How the local Cloud Storage refuses: Google's status, reason and text."""

from __future__ import annotations


class StorageError(Exception):
    """A refused request. ``reason`` is the JSON API's error reason, such as ``conditionNotMet``."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


def no_bucket() -> StorageError:
    return StorageError(404, "notFound", "The specified bucket does not exist.")


def no_object(bucket: str, name: str) -> StorageError:
    return StorageError(404, "notFound", f"No such object: {bucket}/{name}")


def no_upload(upload_id: str) -> StorageError:
    return StorageError(404, "notFound", f"No such upload: {upload_id}")


def invalid(message: str) -> StorageError:
    return StorageError(400, "invalid", message)


def conflict(message: str) -> StorageError:
    return StorageError(409, "conflict", message)


def precondition_failed() -> StorageError:
    text = "At least one of the pre-conditions you specified did not hold."
    return StorageError(412, "conditionNotMet", text)


def not_emulated(feature: str) -> StorageError:
    """Refuse a parameter that would otherwise be ignored silently."""
    return StorageError(501, "notImplemented", f"marquee's local cloud does not emulate {feature}.")
