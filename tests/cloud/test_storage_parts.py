"""XML multipart uploads: by Google's transfer manager, and hand-made requests with mistakes."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path

import google_crc32c
import pytest
import requests
from google.cloud import storage
from google.cloud.storage import transfer_manager
from local_storage import LocalStorage, bearer

PART = 5 << 20
CONTENT = os.urandom(2 * PART + 1000)


@pytest.fixture
def url(local: LocalStorage, bucket: storage.Bucket) -> str:
    return f"{local.server.url}/pictures/a/large%20one"


def start(url: str) -> str:
    answer = requests.post(url + "?uploads", headers={"Content-Type": "text/plain"}, auth=bearer, timeout=60)
    found = re.search("<UploadId>(.*)</UploadId>", answer.text)
    assert found is not None
    return found.group(1)


def send(url: str, upload: str, number: int, content: bytes, **headers: str) -> requests.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.put(
        f"{url}?partNumber={number}&uploadId={upload}", data=content, headers=names, auth=bearer, timeout=60
    )


def complete(url: str, upload: str, parts: list[tuple[int, str]]) -> requests.Response:
    inner = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>{etag}</ETag></Part>" for n, etag in parts)
    body = f"<CompleteMultipartUpload>{inner}</CompleteMultipartUpload>"
    return requests.post(f"{url}?uploadId={upload}", data=body, auth=bearer, timeout=60)


def code(answer: requests.Response) -> str:
    found = re.search("<Code>(.*)</Code>", answer.text)
    return found.group(1) if found else ""


def test_parallel_upload(local: LocalStorage, bucket: storage.Bucket, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(CONTENT)
    blob = bucket.blob("large")
    blob.metadata = {"digest": "abc"}
    transfer_manager.upload_chunks_concurrently(
        str(tmp_path / "large"), blob, chunk_size=PART, max_workers=3, worker_type="thread"
    )

    found = bucket.get_blob("large")

    assert found is not None
    assert local.content("large") == CONTENT
    assert found.crc32c == base64.b64encode(google_crc32c.value(CONTENT).to_bytes(4, "big")).decode()
    assert (found.md5_hash, found.metadata) == (None, {"digest": "abc"})
    assert list(local.store.uploads.iterdir()) == []


def test_parts_in_any_order_and_again(local: LocalStorage, url: str) -> None:
    upload = start(url)
    send(url, upload, 1, b"x" * PART)
    last = send(url, upload, 3, b"the end").headers["ETag"]
    middle = send(url, upload, 2, CONTENT[PART : 2 * PART]).headers["ETag"]
    first = send(url, upload, 1, CONTENT[:PART]).headers["ETag"]

    assert complete(url, upload, [(1, first), (2, middle), (3, last)]).status_code == 200
    assert local.content("a/large one") == CONTENT[: 2 * PART] + b"the end"
    assert local.store.get("pictures", "a/large one").content_type == "text/plain"


def test_upload_survives_a_restart(local: LocalStorage, url: str) -> None:
    upload = start(url)
    first = send(url, upload, 1, CONTENT[:PART]).headers["ETag"]
    local.restart()
    second = send(url, upload, 2, CONTENT[PART:]).headers["ETag"]
    assert complete(url, upload, [(1, first), (2, second)]).status_code == 200
    assert local.content("a/large one") == CONTENT


def test_wrong_checksum_of_a_part_is_refused(url: str) -> None:
    upload = start(url)
    for header in ({"Content_MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}, {"x_goog_hash": "crc32c=AAAAAA=="}):
        answer = send(url, upload, 1, b"content", **header)
        assert (answer.status_code, code(answer)) == (400, "BadDigest")


def test_wrong_completions_are_refused(bucket: storage.Bucket, url: str) -> None:
    upload = start(url)
    first = send(url, upload, 1, b"too small").headers["ETag"]
    last = send(url, upload, 2, b"the end").headers["ETag"]

    assert code(complete(url, upload, [(1, first), (2, last)])) == "EntityTooSmall"
    assert code(complete(url, upload, [(2, last), (1, first)])) == "InvalidPartOrder"
    assert code(complete(url, upload, [(1, last)])) == "InvalidPart"
    assert code(complete(url, upload, [(3, last)])) == "InvalidPart"
    assert code(complete(url, upload, [])) == "InvalidPartOrder"
    assert (
        code(requests.post(f"{url}?uploadId={upload}", data="<a", auth=bearer, timeout=60)) == "MalformedXML"
    )
    assert code(complete(url, "unknown", [(1, first)])) == "NoSuchUpload"
    assert code(send(url, upload, 10_001, b"x")) == "InvalidArgument"
    assert not bucket.blob("a/large one").exists()


def test_cancelled_upload_is_gone(local: LocalStorage, url: str) -> None:
    upload = start(url)
    etag = send(url, upload, 1, b"content").headers["ETag"]
    assert requests.delete(f"{url}?uploadId={upload}", auth=bearer, timeout=60).status_code == 204
    assert code(complete(url, upload, [(1, etag)])) == "NoSuchUpload"
    assert list(local.store.uploads.iterdir()) == []


def test_preconditions_are_refused_rather_than_ignored(url: str) -> None:
    answer = requests.post(
        url + "?uploads", headers={"x-goog-if-generation-match": "0"}, auth=bearer, timeout=60
    )
    assert (answer.status_code, code(answer)) == (400, "InvalidArgument")


def test_a_cut_part_can_be_sent_again(local: LocalStorage, url: str) -> None:
    upload = start(url)
    local.set_fault("upload-cut")
    with pytest.raises(requests.ConnectionError):
        send(url, upload, 1, CONTENT)
    etag = send(url, upload, 1, CONTENT).headers["ETag"]
    assert complete(url, upload, [(1, etag)]).status_code == 200
    assert local.content("a/large one") == CONTENT
