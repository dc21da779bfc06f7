"""Objects, through Google's own client: reading, listing, changing, joining and copying."""

from __future__ import annotations

import base64
import hashlib
import io

import google_crc32c
import pytest
import requests
from google.api_core import exceptions
from google.cloud import storage
from local_storage import LocalStorage, bearer


def crc32c(content: bytes) -> str:
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


def test_object_comes_back_as_it_went(local: LocalStorage, bucket: storage.Bucket) -> None:
    blob = bucket.blob("a folder/ünïcode & more?.txt")
    blob.metadata = {"digest": "abc"}
    blob.cache_control = "no-store"
    blob.upload_from_string("hello\r\n--hello", content_type="text/plain")

    found = bucket.get_blob("a folder/ünïcode & more?.txt")

    assert found is not None
    assert found.download_as_bytes() == b"hello\r\n--hello"
    assert (found.content_type, found.metadata, found.cache_control) == (
        "text/plain",
        {"digest": "abc"},
        "no-store",
    )
    assert found.crc32c == crc32c(b"hello\r\n--hello")
    assert found.md5_hash == base64.b64encode(hashlib.md5(b"hello\r\n--hello").digest()).decode()
    assert (found.size, found.metageneration) == (14, 1)


def test_empty_object(bucket: storage.Bucket) -> None:
    bucket.blob("empty").upload_from_string("")
    assert bucket.blob("empty").download_as_bytes() == b""


@pytest.mark.parametrize(
    ("start", "end", "expected"), [(2, 4, b"234"), (7, None, b"789"), (None, 3, b"0123"), (5, 99, b"56789")]
)
def test_ranges(bucket: storage.Bucket, start: int | None, end: int | None, expected: bytes) -> None:
    blob = bucket.blob("digits")
    blob.upload_from_string("0123456789")
    assert blob.download_as_bytes(start=start, end=end) == expected


def test_range_beyond_the_end(bucket: storage.Bucket) -> None:
    blob = bucket.blob("digits")
    blob.upload_from_string("0123456789")
    with pytest.raises(exceptions.RequestRangeNotSatisfiable):
        blob.download_as_bytes(start=10)


def test_last_bytes_by_the_xml_url(local: LocalStorage, bucket: storage.Bucket) -> None:
    bucket.blob("a/digits").upload_from_string("0123456789")
    url = f"{local.server.url}/pictures/a/digits"
    assert requests.get(url, headers={"Range": "bytes=-3"}, auth=bearer, timeout=60).content == b"789"
    assert requests.head(url, auth=bearer, timeout=60).headers["Content-Length"] == "10"


def test_reads_and_writes_as_a_file(bucket: storage.Bucket) -> None:
    with bucket.blob("lines").open("wb", chunk_size=256 * 1024) as file:
        file.write(b"x" * 700_000)
    with bucket.blob("lines").open("rb") as file:
        assert file.read() == b"x" * 700_000


def test_lists_with_prefix_and_delimiter(local: LocalStorage, bucket: storage.Bucket) -> None:
    for name in ("a/1", "a/b/2", "a/b/3", "a/c/4", "b/5", "a0"):
        bucket.blob(name).upload_from_string(name)

    listing = local.client.list_blobs("pictures", prefix="a/", delimiter="/")

    assert [blob.name for blob in listing] == ["a/1"]
    assert listing.prefixes == {"a/b/", "a/c/"}


@pytest.mark.parametrize("page_size", [1, 2, 3, 100])
def test_pages_cover_everything_once(local: LocalStorage, bucket: storage.Bucket, page_size: int) -> None:
    names = ["a/1", "a/2", "b", "c/1", "c/2", "c/3", "z", "é", "z/~", "\U0001f600"]
    for name in names:
        bucket.blob(name).upload_from_string("")

    found = [blob.name for blob in local.client.list_blobs("pictures", page_size=page_size)]
    folders = local.client.list_blobs("pictures", page_size=page_size, delimiter="/")
    top = [blob.name for blob in folders]

    assert found == sorted(names, key=str.encode)
    assert top == ["b", "z", "é", "\U0001f600"]
    assert folders.prefixes == {"a/", "c/", "z/"}


def test_offsets(local: LocalStorage, bucket: storage.Bucket) -> None:
    for name in "abcdef":
        bucket.blob(name).upload_from_string("")
    found = local.client.list_blobs("pictures", start_offset="b", end_offset="e")
    assert [blob.name for blob in found] == ["b", "c", "d"]


def test_patch_changes_metadata_alone(bucket: storage.Bucket) -> None:
    blob = bucket.blob("one")
    blob.metadata = {"a": "1", "b": "2"}
    blob.upload_from_string("1", content_type="text/plain")
    generation = blob.generation
    blob.metadata = {"a": None, "c": "3"}
    blob.patch()

    found = bucket.get_blob("one")

    assert found is not None
    assert found.metadata == {"b": "2", "c": "3"}
    assert (found.generation, found.metageneration, found.content_type) == (generation, 2, "text/plain")


def test_generation_grows_and_the_old_one_is_gone(bucket: storage.Bucket) -> None:
    blob = bucket.blob("one")
    blob.upload_from_string("1")
    old = blob.generation
    blob.upload_from_string("2")
    assert blob.generation > old
    assert bucket.get_blob("one", generation=old) is None
    with pytest.raises(exceptions.NotFound):
        bucket.delete_blob("one", generation=old)
    assert bucket.blob("one").download_as_bytes() == b"2"


def test_compose_joins_in_order(bucket: storage.Bucket) -> None:
    parts = [bucket.blob(f"part{index}") for index in range(3)]
    for index, part in enumerate(parts):
        part.upload_from_string(f"{index}" * 5)
    whole = bucket.blob("whole")
    whole.content_type = "text/plain"
    whole.compose(parts, if_generation_match=0)
    twice = bucket.blob("twice")
    twice.compose([whole, parts[0]])

    found = bucket.get_blob("twice")

    assert found is not None
    assert found.download_as_bytes() == b"00000111112222200000"
    assert found.component_count == 4
    assert found.md5_hash is None
    assert found.crc32c == crc32c(b"00000111112222200000")


def test_compose_takes_32_at_most(bucket: storage.Bucket) -> None:
    bucket.blob("part").upload_from_string("x")
    with pytest.raises(exceptions.BadRequest, match="33"):
        bucket.blob("whole").compose([bucket.blob("part")] * 33)


def test_compose_checks_the_generation_of_its_sources(bucket: storage.Bucket) -> None:
    part = bucket.blob("part")
    part.upload_from_string("x")
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("whole").compose([part], if_source_generation_match=[part.generation + 1])
    assert not bucket.blob("whole").exists()


def test_copy_and_rewrite_keep_content_and_metadata(local: LocalStorage, bucket: storage.Bucket) -> None:
    blob = bucket.blob("one")
    blob.metadata = {"a": "1"}
    blob.upload_from_string("content", content_type="text/plain")
    other = local.client.create_bucket("elsewhere")

    copied = bucket.copy_blob(blob, other, "copied")
    rewritten = other.blob("rewritten")
    token, done, total = rewritten.rewrite(blob)
    blob.delete()

    assert (token, done, total) == (None, 7, 7)
    for name in ("copied", "rewritten"):
        found = other.get_blob(name)
        assert found is not None
        assert (found.download_as_bytes(), found.metadata) == (b"content", {"a": "1"})
        assert (found.content_type, found.crc32c) == ("text/plain", copied.crc32c)


def test_deleted_object_is_gone(bucket: storage.Bucket) -> None:
    blob = bucket.blob("one")
    blob.upload_from_string("1")
    blob.delete()
    assert not blob.exists()
    with pytest.raises(exceptions.NotFound, match="No such object: pictures/one"):
        blob.delete()


def test_download_of_an_object_that_is_replaced_meanwhile(
    local: LocalStorage, bucket: storage.Bucket
) -> None:
    blob = bucket.blob("one")
    blob.upload_from_string("old")
    with local.store.open("pictures", "one") as file:
        blob.upload_from_string("new")
        assert file.read() == b"old"
    assert local.content("one") == b"new"


def test_no_files_are_left_behind(local: LocalStorage, bucket: storage.Bucket) -> None:
    for content in ("1", "2"):
        bucket.blob("one").upload_from_file(io.BytesIO(content.encode()))
    bucket.blob("one").delete()
    assert list(local.folder.glob("*/*")) == []
