"""Buckets, through Google's own client."""

from __future__ import annotations

import pytest
from google.api_core import exceptions
from google.cloud import storage
from local_storage import LocalStorage


def test_bucket_keeps_what_it_was_made_with(local: LocalStorage) -> None:
    wanted = storage.Bucket(local.client, "models")
    wanted.labels = {"owner": "marquee"}
    wanted.iam_configuration.uniform_bucket_level_access_enabled = True
    local.client.create_bucket(wanted, location="europe-west4")

    found = local.client.get_bucket("models")

    assert (found.location, found.location_type) == ("EUROPE-WEST4", "region")
    assert found.labels == {"owner": "marquee"}
    assert found.iam_configuration.uniform_bucket_level_access_enabled is True


def test_bucket_without_location_is_in_the_us(local: LocalStorage) -> None:
    bucket = local.client.create_bucket("models")
    assert (bucket.location, bucket.location_type, bucket.storage_class) == ("US", "multi-region", "STANDARD")


def test_name_that_is_taken_is_refused(local: LocalStorage, bucket: storage.Bucket) -> None:
    with pytest.raises(exceptions.Conflict, match="you already own it"):
        local.client.create_bucket("pictures")


@pytest.mark.parametrize("name", ["Upper", "ab", "goog-models", "-dash", "a" * 64])
def test_bad_name_is_refused(local: LocalStorage, name: str) -> None:
    with pytest.raises(exceptions.BadRequest, match="Invalid bucket name"):
        local.client._post_resource("/b", {"name": name}, query_params={"project": "a-project"})


def test_lists_buckets_of_a_project_by_pages(local: LocalStorage) -> None:
    for name in ("b-one", "a-two", "b-three"):
        local.client.create_bucket(name)
    local.client.create_bucket("b-foreign", project="another-project")

    found = local.client.list_buckets(prefix="b-", page_size=1)

    assert [bucket.name for bucket in found] == ["b-one", "b-three"]


def test_patch_merges_and_counts(local: LocalStorage, bucket: storage.Bucket) -> None:
    bucket.labels = {"a": "1", "b": "2"}
    bucket.patch()
    bucket.labels = {"b": "3"}
    bucket.patch(if_metageneration_match=2)

    found = local.client.get_bucket("pictures")

    assert (found.labels, found.metageneration) == ({"b": "3"}, 3)


def test_patch_with_stale_metageneration_is_refused(local: LocalStorage, bucket: storage.Bucket) -> None:
    bucket.labels = {"a": "1"}
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.patch(if_metageneration_match=7)
    assert local.client.get_bucket("pictures").labels == {}


def test_bucket_with_objects_is_not_deleted(bucket: storage.Bucket) -> None:
    bucket.blob("one").upload_from_string("1")
    with pytest.raises(exceptions.Conflict, match="not empty"):
        bucket.delete()
    bucket.delete(force=True)
    assert not bucket.exists()


def test_permissions_and_policy(bucket: storage.Bucket) -> None:
    assert bucket.test_iam_permissions(["storage.objects.create"]) == ["storage.objects.create"]
    policy = bucket.get_iam_policy()
    policy["roles/storage.objectViewer"] = {"user:someone@example.com"}
    bucket.set_iam_policy(policy)
    assert bucket.get_iam_policy()["roles/storage.objectViewer"] == {"user:someone@example.com"}


def test_versioning_is_refused_rather_than_ignored(bucket: storage.Bucket) -> None:
    bucket.versioning_enabled = True
    with pytest.raises(exceptions.MethodNotImplemented, match="object versioning"):
        bucket.patch()


def test_bucket_that_is_not_there(local: LocalStorage) -> None:
    assert local.client.lookup_bucket("nowhere") is None
    with pytest.raises(exceptions.NotFound, match="bucket does not exist"):
        local.client.bucket("nowhere").blob("x").upload_from_string("1")
