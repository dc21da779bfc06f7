"""Uploads that break off, have wrong checksums or are resumed, through Google's own client."""

from __future__ import annotations

import base64
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from google.api_core import exceptions
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY
from local_storage import LocalStorage, bearer

GRANULE = 256 * 1024
CONTENT = os.urandom(3 * GRANULE + 1000)


def session_of(bucket: storage.Bucket, **options: object) -> str:
    return str(bucket.blob("one").create_resumable_upload_session(size=len(CONTENT), **options))


def send(url: str, first: int, last: int, total: int | str = len(CONTENT)) -> requests.Response:
    headers = {"Content-Range": f"bytes {first}-{last}/{total}"}
    return requests.put(url, data=CONTENT[first : last + 1], headers=headers, timeout=60)


def probe(url: str) -> requests.Response:
    return requests.put(url, headers={"Content-Range": f"bytes */{len(CONTENT)}"}, timeout=60)


def test_chunks_and_probes(local: LocalStorage, bucket: storage.Bucket) -> None:
    url = session_of(bucket)
    empty = probe(url)
    first = send(url, 0, GRANULE - 1)
    between = probe(url)
    last = send(url, GRANULE, len(CONTENT) - 1)

    assert (empty.status_code, "Range" in empty.headers) == (308, False)
    assert (first.status_code, first.headers["Range"]) == (308, f"bytes=0-{GRANULE - 1}")
    assert (between.status_code, between.headers["Range"]) == (308, f"bytes=0-{GRANULE - 1}")
    assert (last.status_code, last.json()["size"]) == (200, str(len(CONTENT)))
    assert probe(url).json()["generation"] == last.json()["generation"]
    assert local.content("one") == CONTENT


def test_size_that_is_said_last(local: LocalStorage, bucket: storage.Bucket) -> None:
    url = str(bucket.blob("one").create_resumable_upload_session())
    assert send(url, 0, 2 * GRANULE - 1, "*").status_code == 308
    assert send(url, 2 * GRANULE, len(CONTENT) - 1).status_code == 200
    assert local.content("one") == CONTENT


def test_bytes_sent_twice_count_once(local: LocalStorage, bucket: storage.Bucket) -> None:
    url = session_of(bucket)
    send(url, 0, 2 * GRANULE - 1)
    assert send(url, GRANULE, len(CONTENT) - 1).status_code == 200
    assert local.content("one") == CONTENT


@pytest.mark.parametrize(
    ("first", "last", "total"),
    [
        (GRANULE, 2 * GRANULE - 1, len(CONTENT)),  # leaves a gap
        (0, 999, len(CONTENT)),  # not a multiple of 256 KiB, nor the last
        (0, GRANULE - 1, len(CONTENT) + 1),  # not the size announced
    ],
)
def test_wrong_ranges_are_refused(bucket: storage.Bucket, first: int, last: int, total: int) -> None:
    answer = send(session_of(bucket), first, last, total)
    assert answer.status_code == 400
    assert "Invalid request" in answer.json()["error"]["message"]


def test_cancelled_upload_is_gone(local: LocalStorage, bucket: storage.Bucket) -> None:
    url = session_of(bucket)
    send(url, 0, GRANULE - 1)
    assert requests.delete(url, timeout=60).status_code == 499
    assert probe(url).status_code == 404
    assert list(local.store.uploads.iterdir()) == []


def test_upload_cut_in_the_middle_is_taken_up_by_the_client(
    local: LocalStorage, bucket: storage.Bucket
) -> None:
    local.set_fault("upload-cut,after_bytes=300000")
    blob = bucket.blob("one")
    blob.chunk_size = 2 * GRANULE
    blob.upload_from_string(CONTENT, if_generation_match=0, retry=DEFAULT_RETRY)

    assert local.faults.all() == []
    assert local.content("one") == CONTENT


def test_after_a_cut_whole_granules_are_safe(local: LocalStorage, bucket: storage.Bucket) -> None:
    url = session_of(bucket)
    local.set_fault("upload-cut,after_bytes=700000,target=pictures/one")
    with pytest.raises(requests.ConnectionError):
        send(url, 0, len(CONTENT) - 1)

    assert probe(url).headers["Range"] == f"bytes=0-{2 * GRANULE - 1}"
    assert send(url, 2 * GRANULE, len(CONTENT) - 1).status_code == 200
    assert local.content("one") == CONTENT


def test_upload_survives_a_restart_of_the_server(local: LocalStorage, bucket: storage.Bucket) -> None:
    url = session_of(bucket, if_generation_match=0)
    send(url, 0, 2 * GRANULE - 1)
    local.restart()

    assert probe(url).headers["Range"] == f"bytes=0-{2 * GRANULE - 1}"
    answer = send(url, 2 * GRANULE, len(CONTENT) - 1)
    assert answer.status_code == 200
    assert local.content("one") == CONTENT
    assert local.client.bucket("pictures").get_blob("one").crc32c == answer.json()["crc32c"]


def test_objects_survive_a_restart_of_the_server(local: LocalStorage, bucket: storage.Bucket) -> None:
    bucket.blob("one").upload_from_string("1")
    before = bucket.get_blob("one")
    local.restart()
    after = local.client.bucket("pictures").get_blob("one")
    assert after.download_as_bytes() == b"1"
    assert (after.generation, after.time_created) == (before.generation, before.time_created)
    after.upload_from_string("2", if_generation_match=before.generation)


@pytest.mark.parametrize("header", ["crc32c=AAAAAA==", "md5=AAAAAAAAAAAAAAAAAAAAAA=="])
def test_wrong_checksum_in_the_last_request_is_refused(bucket: storage.Bucket, header: str) -> None:
    answer = requests.put(session_of(bucket), data=CONTENT, headers={"x-goog-hash": header}, timeout=60)
    assert answer.status_code == 400
    assert "doesn't match calculated" in answer.json()["error"]["message"]
    assert not bucket.blob("one").exists()


@pytest.mark.parametrize("size", [10, 9 << 20])
@pytest.mark.parametrize("field", ["crc32c", "md5_hash"])
def test_wrong_checksum_in_the_metadata_is_refused(bucket: storage.Bucket, field: str, size: int) -> None:
    """Small content goes by a multipart request, large content by a resumable upload."""
    blob = bucket.blob("one")
    setattr(blob, field, base64.b64encode(b"\0" * (4 if field == "crc32c" else 16)).decode())
    with pytest.raises(exceptions.BadRequest, match="doesn't match calculated"):
        blob.upload_from_string(b"x" * size, checksum=None)
    assert not blob.exists()


def test_stream_of_unknown_length(local: LocalStorage, bucket: storage.Bucket) -> None:
    url = f"{local.server.url}/upload/storage/v1/b/pictures/o?uploadType=media&name=one"
    pieces = (CONTENT[start : start + 10_000] for start in range(0, len(CONTENT), 10_000))
    assert requests.post(url, data=pieces, auth=bearer, timeout=60).json()["size"] == str(len(CONTENT))
    assert local.content("one") == CONTENT


def test_sender_that_goes_away_leaves_nothing(local: LocalStorage, bucket: storage.Bucket) -> None:
    def broken() -> Iterator[bytes]:
        yield CONTENT
        raise OSError("the disk is gone")

    url = f"{local.server.url}/upload/storage/v1/b/pictures/o?uploadType=media&name=one"
    with pytest.raises(OSError, match="the disk is gone"):
        requests.post(url, data=broken(), auth=bearer, timeout=60)
    local.restart()
    assert list(local.folder.glob("*/*")) == []
    assert not local.client.bucket("pictures").blob("one").exists()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("storage-permission-denied", exceptions.Forbidden),
        ("storage-too-many-requests", exceptions.TooManyRequests),
        ("storage-unavailable", exceptions.ServiceUnavailable),
    ],
)
def test_refusals_on_request(
    local: LocalStorage, bucket: storage.Bucket, fault: str, error: type[Exception]
) -> None:
    local.set_fault(f"{fault},target=pictures/*.mar,count=1")
    bucket.blob("model.txt").upload_from_string("1")
    with pytest.raises(error):
        bucket.blob("model.mar").upload_from_string("1", retry=None)


def test_client_retries_past_a_refusal(local: LocalStorage, bucket: storage.Bucket, tmp_path: Path) -> None:
    local.set_fault("storage-unavailable,count=2")
    bucket.blob("one").upload_from_string("1", if_generation_match=0)
    assert local.content("one") == b"1"


def test_compressed_content_is_stored_as_it_came(local: LocalStorage, bucket: storage.Bucket) -> None:
    packed = zlib.compress(b"x" * 1000, wbits=31)
    blob = bucket.blob("one")
    blob.content_encoding = "gzip"
    blob.upload_from_string(packed)
    assert blob.download_as_bytes(raw_download=True) == packed
    assert blob.download_as_bytes() == b"x" * 1000
