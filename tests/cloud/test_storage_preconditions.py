"""A generation precondition that is ignored lets a race overwrite a model: every verb must honour it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from google.api_core import exceptions
from google.cloud import storage
from local_storage import LocalStorage

LARGE = 9 << 20  # beyond 8 MiB Google's client chooses a resumable upload


def multipart(blob: storage.Blob, **preconditions: int) -> None:
    blob.upload_from_string("new", **preconditions)


def resumable(blob: storage.Blob, **preconditions: int) -> None:
    blob.upload_from_string(b"n" * LARGE, **preconditions)


def resumable_in_chunks(blob: storage.Blob, **preconditions: int) -> None:
    blob.chunk_size = 256 * 1024
    blob.upload_from_string(b"n" * 300_000, **preconditions)


def compose(blob: storage.Blob, **preconditions: int) -> None:
    blob.compose([blob.bucket.blob("source")], **preconditions)


def rewrite(blob: storage.Blob, **preconditions: int) -> None:
    blob.rewrite(blob.bucket.blob("source"), **preconditions)


def copy(blob: storage.Blob, **preconditions: int) -> None:
    blob.bucket.copy_blob(blob.bucket.blob("source"), blob.bucket, blob.name, **preconditions)


def patch(blob: storage.Blob, **preconditions: int) -> None:
    blob.metadata = {"changed": "yes"}
    blob.patch(**preconditions)


def update(blob: storage.Blob, **preconditions: int) -> None:
    blob.metadata = {"changed": "yes"}
    blob.update(**preconditions)


def delete(blob: storage.Blob, **preconditions: int) -> None:
    blob.delete(**preconditions)


def read(blob: storage.Blob, **preconditions: int) -> None:
    blob.download_as_bytes(**preconditions)


def reload(blob: storage.Blob, **preconditions: int) -> None:
    blob.reload(**preconditions)


WRITES = [multipart, resumable, resumable_in_chunks, compose, rewrite, copy]
CHANGES = [*WRITES, patch, update, delete]
Verb = Callable[..., None]


@pytest.fixture
def blob(bucket: storage.Bucket) -> storage.Blob:
    bucket.blob("source").upload_from_string("source")
    blob = bucket.blob("one")
    blob.upload_from_string("old")
    return bucket.blob("one")


def untouched(local: LocalStorage) -> bool:
    stored = local.store.get("pictures", "one")
    return local.content("one") == b"old" and stored.metageneration == 1


@pytest.mark.parametrize("verb", WRITES)
def test_write_that_must_be_the_first_is_refused(local: LocalStorage, blob: storage.Blob, verb: Verb) -> None:
    with pytest.raises(exceptions.PreconditionFailed):
        verb(blob, if_generation_match=0)
    assert untouched(local)


@pytest.mark.parametrize("verb", WRITES)
def test_write_that_is_the_first_passes(bucket: storage.Bucket, blob: storage.Blob, verb: Verb) -> None:
    verb(bucket.blob("another"), if_generation_match=0)
    assert bucket.blob("another").exists()


@pytest.mark.parametrize("verb", [*CHANGES, read, reload])
def test_wrong_generation_is_refused(local: LocalStorage, blob: storage.Blob, verb: Verb) -> None:
    with pytest.raises(exceptions.PreconditionFailed):
        verb(blob, if_generation_match=12345)
    assert untouched(local)


@pytest.mark.parametrize("verb", [*CHANGES, read, reload])
def test_right_generation_passes(local: LocalStorage, blob: storage.Blob, verb: Verb) -> None:
    verb(blob, if_generation_match=local.store.get("pictures", "one").generation)
    assert verb in (read, reload) or not (blob.exists() and untouched(local))


@pytest.mark.parametrize("verb", [*CHANGES, read, reload])
def test_wrong_metageneration_is_refused(local: LocalStorage, blob: storage.Blob, verb: Verb) -> None:
    with pytest.raises(exceptions.PreconditionFailed):
        verb(blob, if_metageneration_match=2)
    assert untouched(local)


@pytest.mark.parametrize("verb", [verb for verb in CHANGES if verb is not compose])  # no such argument
def test_unwanted_generation_is_refused(local: LocalStorage, blob: storage.Blob, verb: Verb) -> None:
    generation = local.store.get("pictures", "one").generation
    with pytest.raises(exceptions.PreconditionFailed):
        verb(blob, if_generation_not_match=generation)
    assert untouched(local)


def test_read_of_a_known_generation_is_not_modified(local: LocalStorage, blob: storage.Blob) -> None:
    generation = local.store.get("pictures", "one").generation
    with pytest.raises(exceptions.NotModified):
        blob.download_as_bytes(if_generation_not_match=generation)


def test_source_of_a_copy_is_checked(bucket: storage.Bucket, blob: storage.Blob) -> None:
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("another").rewrite(blob, if_source_generation_match=12345)
    assert not bucket.blob("another").exists()


def test_race_during_a_resumable_upload_is_lost_at_its_end(
    local: LocalStorage, bucket: storage.Bucket, tmp_path: Path
) -> None:
    """Both uploads begin while the object is not there; the one that ends second must not win."""
    url = bucket.blob("one").create_resumable_upload_session(if_generation_match=0, size=3)
    bucket.blob("one").upload_from_string("old", if_generation_match=0)

    answer = local.client._http.put(url, data=b"new")

    assert answer.status_code == 412
    assert answer.json()["error"]["errors"][0]["reason"] == "conditionNotMet"
    assert untouched(local)
