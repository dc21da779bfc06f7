"""Calls without the token, from a browser or under a foreign host name are refused."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest
from google.cloud.aiplatform_v1.types import ListModelsRequest, ListModelsResponse
from plain_http import Answer, request
from standing_cloud import LOCATION, Standing

IMAGE = "us-docker.pkg.dev/vertex-ai/prediction/pytorch-gpu.2-4:latest"
DOMAINS = {
    "storage": "storage.googleapis.com",
    "vertex_rest": "us-central1-aiplatform.googleapis.com",
    "dedicated": "1.us-central1-123456789012.prediction.vertexai.goog",
    "accounts": "cloudresourcemanager.googleapis.com",
}


def five_posts() -> list[tuple[str, bytes]]:
    """What a web page can send without being asked: simple POSTs of text, from a name that is not ours."""
    model = {
        "displayName": "theirs",
        "artifactUri": "gs://theirs/",
        "containerSpec": {"imageUri": IMAGE},
    }
    machine = {
        "machineType": "n1-standard-8",
        "acceleratorType": "NVIDIA_TESLA_P100",
        "acceleratorCount": 1,
    }
    deployed = {
        "model": f"{LOCATION}/models/theirs",
        "dedicatedResources": {"machineSpec": machine, "minReplicaCount": 1, "maxReplicaCount": 1},
    }
    deploy = {"deployedModel": deployed, "trafficSplit": {"0": 100}}
    calls = [
        ("storage", "/storage/v1/b?project=p", json.dumps({"name": "theirs"}).encode()),
        ("storage", "/upload/storage/v1/b/theirs/o?uploadType=media&name=model.mar", b"no archive"),
        ("vertex_rest", f"/v1/{LOCATION}/models:upload", _json({"model": model, "modelId": "theirs"})),
        ("vertex_rest", f"/v1/{LOCATION}/endpoints?endpointId=theirs", _json({"displayName": "theirs"})),
        ("vertex_rest", f"/v1/{LOCATION}/endpoints/theirs:deployModel", _json(deploy)),
    ]
    page = {"Host": "rebound.example", "Origin": "https://rebound.example", "Content-Type": "text/plain"}
    return [(service, request("POST", path, body, **page)) for service, path, body in calls]


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def test_the_five_posts_of_a_web_page_make_nothing(cloud: Standing) -> None:
    answers = [cloud.send(service, content) for service, content in five_posts()]
    assert [answer.status for answer in answers] == [403] * 5
    assert all(not any(part.rglob("*.mar")) for part in (cloud.folder.storage, cloud.folder.vertex))
    for service, path in (
        ("storage", "/storage/v1/b/theirs"),
        ("vertex_rest", f"/v1/{LOCATION}/models/theirs"),
        ("vertex_rest", f"/v1/{LOCATION}/endpoints/theirs"),
    ):
        answer = cloud.send(service, request("GET", path, Authorization=cloud.bearer))
        assert answer.status == 404, answer


CALLS = [
    ("storage", "GET", "/storage/v1/b?project=marquee-local"),
    ("storage", "GET", "/download/storage/v1/b/a/o/b?alt=media"),
    ("storage", "GET", "/bucket/object"),
    ("storage", "PUT", "/bucket/object?partNumber=1&uploadId=x"),
    ("storage", "POST", "/upload/storage/v1/b/a/o?uploadType=resumable&name=b"),
    ("storage", "POST", "/upload/storage/v1/b/a/o?uploadType=media&name=b&upload_id=x"),
    ("vertex_rest", "GET", f"/v1/{LOCATION}/models"),
    ("vertex_rest", "POST", f"/v1/{LOCATION}/endpoints/1:predict"),
    ("vertex_rest", "POST", f"/v1/{LOCATION}/endpoints/1:rawPredict"),
    ("vertex_rest", "GET", "/nothing/of/ours"),
    ("dedicated", "POST", f"/v1/{LOCATION}/endpoints/1:rawPredict"),
    ("accounts", "GET", "/v3/projects/marquee-local"),
    ("accounts", "POST", "/v1/projects/p:testIamPermissions"),
]


@pytest.mark.parametrize(("service", "method", "path"), CALLS)
@pytest.mark.parametrize("token", [None, "Bearer wrong", "Basic bWU6bWU=", "Bearer marquee-local-cloud", ""])
def test_every_call_needs_the_token(
    cloud: Standing, service: str, method: str, path: str, token: str | None
) -> None:
    answer = cloud.send(service, request(method, path, Authorization=token))
    assert answer.status == 401
    assert "www-authenticate: bearer" in answer.head.lower()
    if path.startswith("/bucket"):
        assert b"<Code>AuthenticationRequired</Code>" in answer.body
    else:
        error = answer.document()["error"]
        assert error["code"] == 401
        assert error.get("status", "UNAUTHENTICATED") == "UNAUTHENTICATED"


@pytest.mark.parametrize(("service", "method", "path"), CALLS)
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "rebound.example"},
        {"Host": "storage.googleapis.com.rebound.example"},
        {"Host": "127.0.0.1.rebound.example:8000"},
        {"Host": "bigquery.googleapis.com"},
        {"Host": ""},
        {"Host": None},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Mode": "no-cors"},
    ],
    ids=str,
)
def test_the_token_does_not_help_a_browser_or_a_foreign_name(
    cloud: Standing, service: str, method: str, path: str, headers: dict[str, str | None]
) -> None:
    given = {"Authorization": cloud.bearer, **headers}
    answer = cloud.send(service, request(method, path, **given))
    assert answer.status == (400 if headers.get("Host", "x") in ("", None) else 403)
    assert "access-control" not in answer.head.lower()


@pytest.mark.parametrize(("service", "method", "path"), CALLS)
def test_no_preflight_succeeds(cloud: Standing, service: str, method: str, path: str) -> None:
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": method}
    for headers in (asked, {}, {"Authorization": cloud.bearer}):
        answer = cloud.send(service, request("OPTIONS", path, **headers))
        assert answer.status >= 400
        assert "access-control" not in answer.head.lower()


@pytest.mark.parametrize("service", DOMAINS)
def test_google_s_names_and_loopback_s_are_the_servers_own(cloud: Standing, service: str) -> None:
    path = "/v1/projects/p" if service == "accounts" else "/storage/v1/b/none"
    for host in (DOMAINS[service], f"{DOMAINS[service]}:443", "localhost:80", "127.0.0.1"):
        answer = cloud.send(service, request("GET", path, Host=host, Authorization=cloud.bearer))
        assert answer.status in (200, 404), (host, answer)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
@pytest.mark.parametrize(
    ("service", "path", "body"),
    [
        ("storage", "/storage/v1/b?project=p", {"name": "by-text"}),
        ("vertex_rest", f"/v1/{LOCATION}/endpoints", {"displayName": "by-text"}),
        ("accounts", "/v1/projects/p:testIamPermissions", {"permissions": []}),
    ],
)
def test_json_calls_take_json_alone(
    cloud: Standing, service: str, path: str, body: dict[str, object], kind: str | None
) -> None:
    given = {"Authorization": cloud.bearer, "Content-Type": kind}
    answer = cloud.send(service, request("POST", path, _json(body), **given))
    assert answer.status == 400
    assert b"application/json" in answer.body


def test_grpc_needs_the_token(cloud: Standing) -> None:
    roots = grpc.ssl_channel_credentials(Path(cloud.running.ca_file).read_bytes())
    with grpc.secure_channel(cloud.running.vertex_grpc, roots) as channel:
        list_models = channel.unary_unary(
            "/google.cloud.aiplatform.v1.ModelService/ListModels",
            request_serializer=ListModelsRequest.serialize,
            response_deserializer=ListModelsResponse.deserialize,
        )
        asked, bearer = ListModelsRequest(parent=LOCATION), ("authorization", cloud.bearer)
        refused = [
            ([], grpc.StatusCode.UNAUTHENTICATED),
            ([("authorization", "Bearer wrong")], grpc.StatusCode.UNAUTHENTICATED),
            ([bearer, ("authorization", "Bearer wrong")], grpc.StatusCode.UNAUTHENTICATED),
            ([bearer, ("origin", "https://a.example")], grpc.StatusCode.PERMISSION_DENIED),
            ([bearer, ("sec-fetch-site", "none")], grpc.StatusCode.PERMISSION_DENIED),
        ]
        for metadata, code in refused:
            with pytest.raises(grpc.RpcError) as failure:
                list_models(asked, metadata=metadata, timeout=60)
            assert failure.value.code() == code
        assert list_models(asked, metadata=[bearer], timeout=60) == ListModelsResponse()


def test_a_resumable_session_is_its_own_secret(cloud: Standing) -> None:
    """As at Google, whoever has the URI of a session may go on with it without a token; but no browser."""
    _json_call(cloud, "/storage/v1/b?project=p", {"name": "sessions"})
    path = "/upload/storage/v1/b/sessions/o?uploadType=resumable"
    begun = _json_call(cloud, path, {"name": "content"})
    location = next(line for line in begun.head.splitlines() if line.lower().startswith("location:"))
    session = "/" + location.partition("://")[2].partition("/")[2]
    assert len(session.partition("upload_id=")[2]) >= 32

    put = {"Content-Range": "bytes 0-2/3"}
    page = cloud.send("storage", request("PUT", session, b"abc", Origin="https://a.example", **put))
    other = cloud.send("storage", request("PUT", session.replace("sessions", "others"), b"abc", **put))
    guess = cloud.send("storage", request("PUT", f"{session[:-4]}abcd", b"abc", **put))
    assert (page.status, other.status, guess.status) == (403, 404, 404)
    assert cloud.send("storage", request("PUT", session, b"abc", **put)).status == 200


def _json_call(cloud: Standing, path: str, body: dict[str, object]) -> Answer:
    given = {"Authorization": cloud.bearer, "Content-Type": "application/json"}
    answer = cloud.send("storage", request("POST", path, _json(body), **given))
    assert answer.status == 200, answer
    return answer


def test_a_refused_upload_is_read_to_its_end_so_that_the_refusal_arrives(cloud: Standing) -> None:
    path = "/upload/storage/v1/b/a/o?uploadType=media&name=b"
    answer = cloud.send("storage", request("POST", path, bytes(5 << 20), Authorization="Bearer wrong"))
    assert answer.status == 401


def test_secrets_are_their_owner_s_and_no_token_is_kept(cloud: Standing) -> None:
    token = cloud.bearer.partition(" ")[2]
    secret = [cloud.folder.path, cloud.folder.credentials, cloud.folder.certificates / "server.key"]
    assert [path.stat().st_mode & 0o077 for path in secret] == [0, 0, 0]
    files = [path for path in cloud.folder.path.rglob("*") if path.is_file()]
    assert not [path for path in files if token.encode() in path.read_bytes()]
