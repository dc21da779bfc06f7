"""Hostile names, routes, numbers and headers are refused, and no file outside the cloud's folder changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from plain_http import Answer
from standing_cloud import LOCATION, Standing

pytestmark = pytest.mark.usefixtures("hostile_bucket", "unharmed")
MEDIA = "/upload/storage/v1/b/hostile/o?uploadType=media&name=x"
SLY = [
    "..",
    ".",
    "../../../../etc/passwd",
    "..%2f..%2fetc",
    "a/../../b",
    "\u0000",
    "/etc/passwd",
    "a" * 1025,
    "\r\nX: y",
]


@pytest.mark.parametrize("name", SLY)
def test_names_do_not_leave_the_folder(cloud: Standing, name: str, tmp_path: Path) -> None:
    before = everything_but(cloud)
    coded = quote(name, safe="")
    path = f"/upload/storage/v1/b/hostile/o?uploadType=media&name={coded}"
    made = cloud.call("storage", "POST", path, b"content")
    assert made.status in (200, 400)
    answers = [
        cloud.call("storage", "GET", f"/storage/v1/b/hostile/o/{coded}?alt=media"),
        cloud.call("storage", "GET", f"/hostile/{coded}"),
        cloud.call("storage", "GET", f"/hostile/{name if name.isascii() and name.isprintable() else ''}"),
        cloud.call("storage", "GET", f"/storage/v1/b/{coded}"),
        cloud.call("storage", "POST", "/storage/v1/b?project=p", {"name": name}),
    ]
    assert all(answer.body == b"content" or answer.status >= 400 for answer in answers)
    assert all(b"root:" not in answer.body for answer in answers)
    assert "\nX: y" not in "".join(answer.head for answer in answers)
    cloud.call("storage", "DELETE", f"/storage/v1/b/hostile/o/{coded}")
    assert everything_but(cloud) == before


def everything_but(cloud: Standing) -> set[Path]:
    """All files near the cloud's folder that are none of its own stores'."""
    own = (cloud.folder.storage / "blobs", cloud.folder.storage / "uploads", cloud.folder.vertex / "deployed")
    return {
        path for path in cloud.folder.path.parent.rglob("*") if not any(part in path.parents for part in own)
    }


@pytest.mark.parametrize(
    "uri", ["gs://hostile/../../etc", "gs://../..", "gs://", "file:///etc", "/etc", "gs://hostile/%2e%2e"]
)
def test_model_artifacts_do_not_leave_the_buckets(cloud: Standing, uri: str) -> None:
    assert upload_model(cloud, artifactUri=uri).status in (400, 404)


@pytest.mark.parametrize(
    "route",
    ["@a.example/x", ":80@a.example/", "x", "//a.example/x", "/a b", "/a\r\nX: y", "http://a.example/"],
)
def test_routes_stay_on_the_container(cloud: Standing, route: str) -> None:
    """A replica's address and this text make the URL that predictions are sent to."""
    for field in ("predictRoute", "healthRoute"):
        answer = upload_model(cloud, containerSpec={"imageUri": IMAGE, field: route})
        assert (answer.status, b"oute" in answer.body) == (400, True), answer


IMAGE = "us-docker.pkg.dev/vertex-ai/prediction/pytorch-gpu.2-4:latest"


def upload_model(cloud: Standing, **fields: Any) -> Answer:
    path = "/upload/storage/v1/b/hostile/o?uploadType=media&name=good/model.mar"
    assert cloud.call("storage", "POST", path, b"archive").status == 200
    model = {
        "displayName": "m",
        "artifactUri": "gs://hostile/good",
        "containerSpec": {"imageUri": IMAGE},
        **fields,
    }
    return cloud.call("vertex_rest", "POST", f"/v1/{LOCATION}/models:upload", {"model": model})


@pytest.mark.parametrize(
    ("method", "path", "body", "headers"),
    [
        ("POST", "/storage/v1/b/hostile/o/x/compose", {"sourceObjects": [{}]}, {}),
        ("POST", "/storage/v1/b/hostile/o/x/compose", {"sourceObjects": 3}, {}),
        (
            "POST",
            "/storage/v1/b/hostile/o/x/compose",
            {"sourceObjects": [{"name": "y", "generation": "z"}]},
            {},
        ),
        ("POST", "/storage/v1/b/hostile/o/x/compose", {"sourceObjects": [], "destination": 3}, {}),
        ("POST", "/storage/v1/b?project=p", {"name": "abc", "versioning": "yes"}, {}),
        ("POST", "/storage/v1/b?project=p", {"name": {"a": 1}}, {}),
        ("PATCH", "/storage/v1/b/hostile", {"versioning": 3}, {}),
        ("GET", "/storage/v1/b/hostile/o?maxResults=%C2%B2", None, {}),
        ("GET", f"/storage/v1/b/hostile/o?maxResults={'9' * 5000}", None, {}),
        ("GET", "/storage/v1/b/hostile/o?pageToken=%ff", None, {}),
        ("GET", "/storage/v1/b/hostile/o?pageToken=a", None, {}),
        ("GET", "/storage/v1/b/hostile/o/x?generation=%C2%B2", None, {}),
        ("GET", "/storage/v1/b/hostile/o/x?ifGenerationMatch=%C2%B2", None, {}),
        ("GET", "/storage/v1/b/hostile/o/x?ifGenerationMatch=--3", None, {}),
        ("POST", "/storage/v1/b/hostile/o/x/copyTo/b/hostile/o/y?sourceGeneration=z", None, {}),
        ("PUT", "/hostile/x?uploadId=y&partNumber=%C2%B2", b"x", {}),
        (
            "POST",
            "/upload/storage/v1/b/hostile/o?uploadType=resumable&name=x",
            {},
            {"X-Upload-Content-Length": "x"},
        ),
        (
            "POST",
            "/upload/storage/v1/b/hostile/o?uploadType=multipart",
            b"x",
            {"Content-Type": "multipart/related"},
        ),
        (
            "POST",
            "/upload/storage/v1/b/hostile/o?uploadType=multipart",
            b"x",
            {"Content-Type": "multipart/related; boundary=é"},
        ),
        (
            "POST",
            "/upload/storage/v1/b/hostile/o?uploadType=resumable",
            {"name": "x", "contentType": "a\r\nX: y"},
            {},
        ),
        ("POST", "/upload/storage/v1/b/hostile/o?uploadType=resumable", {"name": "x", "contentType": {}}, {}),
        (
            "POST",
            "/upload/storage/v1/b/hostile/o?uploadType=resumable",
            {"name": "x", "contentEncoding": "\u2603"},
            {},
        ),
        ("POST", "/upload/storage/v1/b/hostile/o?uploadType=resumable", {"name": "x", "metadata": 3}, {}),
        ("POST", "/upload/storage/v1/b/hostile/o?uploadType=resumable", {"name": "x", "crc32c": 3}, {}),
    ],
    ids=range(24),
)
def test_fields_of_the_wrong_kind(
    cloud: Standing, method: str, path: str, body: Any, headers: dict[str, str]
) -> None:
    answer = cloud.call("storage", method, path, body, **headers)
    assert 400 <= answer.status < 500, answer


def test_ranges_that_are_no_numbers_give_the_whole(cloud: Standing) -> None:
    assert cloud.call("storage", "POST", MEDIA, b"0123456789").status == 200
    for text in (f"bytes={'9' * 5000}-", "bytes=a-b", "bytes=--1", "chunks=1-2"):
        answer = cloud.call("storage", "GET", "/hostile/x", **{"Range": text})
        assert (answer.status, answer.body) == (200, b"0123456789")
    assert cloud.call("storage", "DELETE", "/storage/v1/b/hostile/o/x").status == 204


@pytest.mark.parametrize("bomb", ["entities", "deep"])
def test_xml_bombs(cloud: Standing, bomb: str) -> None:
    lines = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    body = f'<!DOCTYPE x [<!ENTITY a0 "lol">{lines}]><x>&a11;</x>' if bomb == "entities" else "<a>" * 200_000
    assert cloud.call("storage", "POST", "/hostile/x?uploadId=y", body.encode()).status == 400
