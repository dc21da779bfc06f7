"""The parts below the services, without a server: the method table, HTTP transcoding, filters, traffic."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from google.cloud.aiplatform_v1.types import Endpoint, ListModelsRequest, UpdateEndpointRequest

from pipeline.cloud.vertex.failures import ServiceFailure, code_of_http_status
from pipeline.cloud.vertex.listing import page, parse_filter
from pipeline.cloud.vertex.methods import Method, list_methods
from pipeline.cloud.vertex.names import read_endpoint, read_model
from pipeline.cloud.vertex.traffic import TrafficSplitter
from pipeline.cloud.vertex.transcode import find_route, read_request

LOCATION = "projects/p/locations/us-central1"
METHODS = list_methods()


def route(verb: str, path: str) -> tuple[Method, Any, Any]:
    found = find_route(METHODS, verb, path)
    assert found is not None, f"{verb} {path}"
    return found


def test_the_table_holds_the_sdk_s_methods_with_their_request_classes() -> None:
    table = {method.key: method for method in METHODS}
    assert table["ModelService.ListModels"].request is ListModelsRequest
    assert table["PredictionService.StreamRawPredict"].streams
    assert table["Operations.GetOperation"].request.DESCRIPTOR.name == "GetOperationRequest"
    assert {"EndpointService.DeployModel", "IAMPolicy.TestIamPermissions", "Locations.ListLocations"} <= set(
        table
    )
    assert len(table) > 40


@pytest.mark.parametrize(
    ("verb", "path", "key"),
    [
        ("POST", f"/v1/{LOCATION}/models:upload", "ModelService.UploadModel"),
        ("GET", f"/v1/{LOCATION}/models/7%401", "ModelService.GetModel"),
        ("DELETE", f"/v1/{LOCATION}/models/7@1:deleteVersion", "ModelService.DeleteModelVersion"),
        ("POST", f"/v1/{LOCATION}/endpoints/7:deployModel", "EndpointService.DeployModel"),
        ("POST", f"/v1/{LOCATION}/endpoints/7:rawPredict", "PredictionService.RawPredict"),
        ("GET", f"/ui/{LOCATION}/models/7/operations/8", "Operations.GetOperation"),
        ("GET", f"/v1/{LOCATION}/operations/8", "Operations.GetOperation"),
        ("POST", f"/ui/{LOCATION}/endpoints/7/operations/8:wait", "Operations.WaitOperation"),
        ("GET", f"/v1/{LOCATION}/endpoints/7/operations", "Operations.ListOperations"),
    ],
)
def test_paths_lead_to_their_methods(verb: str, path: str, key: str) -> None:
    assert route(verb, path)[0].key == key


def test_a_path_that_nobody_serves_is_not_found() -> None:
    assert find_route(METHODS, "GET", f"/v1/{LOCATION}/notebooks/7") is None
    assert find_route(METHODS, "POST", f"/v1/{LOCATION}/endpoints/7") is None


def test_body_path_and_query_meet_in_one_message() -> None:
    path = f"/v1/{LOCATION}/endpoints/7"
    query = "updateMask=displayName,trafficSplit&$alt=json;enum-encoding=int"
    request = read_request(*route("PATCH", path), query, b'{"displayName": "x", "trafficSplit": {"1": 100}}')
    assert request == UpdateEndpointRequest(
        endpoint=Endpoint(name=f"{LOCATION}/endpoints/7", display_name="x", traffic_split={"1": 100}),
        update_mask={"paths": ["display_name", "traffic_split"]},
    )
    listed = read_request(*route("GET", f"/v1/{LOCATION}/models"), "pageSize=5&filter=a%3Db", b"")
    assert (listed.parent, listed.page_size, listed.filter) == (LOCATION, 5, "a=b")


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"displayNam": "x"}', b'{"labels": 3}'])
def test_a_body_that_is_not_the_message_is_refused(body: bytes) -> None:
    with pytest.raises(ServiceFailure, match="Invalid JSON payload") as refusal:
        read_request(*route("POST", f"/v1/{LOCATION}/endpoints"), "", body)
    assert refusal.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('display_name="a b"', True),
        ("display_name=a", False),
        ("labels.owner=marquee", True),
        ("labels.owner!=marquee", False),
        ("labels:owner", True),
        ("labels.owner:*", True),
        ("labels.missing:*", False),
        ("NOT labels.missing:*", True),
        ("-labels.owner:*", False),
        ("model=7 AND done=false", True),
        ("model=8 OR (labels.owner=marquee AND NOT model=9)", True),
        ('create_time>"2026-01-01T00:00:00Z"', True),
        ('create_time>="2027"', False),
    ],
)
def test_filters(text: str, expected: bool) -> None:
    document = {
        "name": "projects/1/locations/l/models/7@2",
        "display_name": "a b",
        "labels": {"owner": "marquee"},
        "create_time": "2026-11-21T00:00:00Z",
    }
    assert parse_filter(text)(document) is expected


@pytest.mark.parametrize("text", ["display_name", "a=b AND", "(a=b", "a=b)", "OR a=b", "a==b", "a=b &&"])
def test_filters_that_are_not_understood_are_refused(text: str) -> None:
    with pytest.raises(ServiceFailure, match="Invalid filter"):
        parse_filter(text)


def test_pages_join_to_the_whole_and_a_foreign_token_is_refused() -> None:
    items = [Endpoint(display_name=f"{number}") for number in range(7)]
    seen, token = page(items, 3, "")
    while token:
        more, token = page(items, 3, token)
        seen += more
    assert seen == items
    with pytest.raises(ServiceFailure, match="page token"):
        page(items, 3, "zzz")


def test_traffic_is_spread_by_chance_and_follows_a_changed_split() -> None:
    splitter = TrafficSplitter(seed=1)
    chosen = [splitter.choose("e", {"a": 90, "b": 10, "c": 0}) for _ in range(2000)]
    counted = Counter(chosen)
    assert set(counted) == {"a", "b"}
    assert 140 < counted["b"] < 260
    by_tens = {Counter(chosen[start : start + 10])["b"] for start in range(0, 2000, 10)}
    assert {0, 1, 2, 3} <= by_tens, "a share of 10 % is no turn in every ten"
    again = TrafficSplitter(seed=1)
    assert [again.choose("e", {"a": 90, "b": 10}) for _ in range(2000)] == chosen
    assert {splitter.choose("e", {"b": 100}) for _ in range(10)} == {"b"}


def test_names_are_read_with_the_project_s_number() -> None:
    assert read_endpoint("projects/marquee-local/locations/l/endpoints/e").startswith(
        "projects/123456789012/"
    )
    name = read_model("projects/7/locations/l/models/m@blue")
    assert (name.resource, name.version) == ("projects/7/locations/l/models/m", "blue")
    for wrong in ("models/m", "projects/p/models/m", "projects/p/locations/l/endpoints/"):
        with pytest.raises(ServiceFailure):
            read_model(wrong)


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "INVALID_ARGUMENT"), (418, "INVALID_ARGUMENT"), (500, "INTERNAL"), (599, "INTERNAL")],
)
def test_every_http_status_of_a_container_has_a_code(status: int, code: str) -> None:
    assert code_of_http_status(status) == code
