"""Endpoints over both transports: ids, dedicated names, changes and deletes."""

from __future__ import annotations

import pytest
from google.api_core import exceptions
from local_vertex import LOCATION, NUMBERED, Clients, LocalVertex


def test_an_endpoint_is_made_under_the_id_asked_for(clients: Clients) -> None:
    made = clients.create_endpoint("pictures", "pictures", labels={"owner": "marquee"})
    assert made.name == f"{NUMBERED}/endpoints/pictures"
    found = clients.endpoints.get_endpoint(name=f"{LOCATION}/endpoints/pictures")
    assert (found.display_name, dict(found.labels)) == ("pictures", {"owner": "marquee"})
    assert found.create_time
    assert not found.dedicated_endpoint_dns
    with pytest.raises(exceptions.Conflict, match="already exists"):
        clients.create_endpoint("pictures", "pictures")


def test_a_dedicated_endpoint_says_where_it_answers(cloud: LocalVertex, clients: Clients) -> None:
    timeout = {"inference_timeout": {"seconds": 300}}
    made = clients.create_endpoint("d", dedicated_endpoint_enabled=True, client_connection_config=timeout)
    assert cloud.servers
    assert made.dedicated_endpoint_dns == cloud.servers.dedicated_address
    found = clients.endpoints.get_endpoint(name=made.name)
    assert found.dedicated_endpoint_dns == cloud.servers.dedicated_address
    assert found.client_connection_config.inference_timeout.total_seconds() == 300


@pytest.mark.parametrize(
    ("endpoint_id", "fields", "text"),
    [
        ("Pictures", {}, "Invalid endpoint_id"),
        ("", {"display_name": "x" * 129}, "Display name"),
        ("", {"labels": {"A": "b"}}, "Invalid label"),
        ("", {"client_connection_config": {"inference_timeout": {"seconds": 90}}}, "inference_timeout"),
    ],
)
def test_endpoints_that_google_refuses(
    clients: Clients, endpoint_id: str, fields: dict[str, object], text: str
) -> None:
    endpoint = {"display_name": "pictures", **fields}
    with pytest.raises(exceptions.BadRequest, match=text):
        clients.endpoints.create_endpoint(
            {"parent": LOCATION, "endpoint": endpoint, "endpoint_id": endpoint_id}
        )


def test_a_region_that_vertex_ai_does_not_have_is_refused(clients: Clients) -> None:
    parent = "projects/marquee-local/locations/atlantis1"
    with pytest.raises(exceptions.BadRequest, match="Unsupported region"):
        clients.endpoints.create_endpoint(parent=parent, endpoint={"display_name": "x"})


def test_endpoints_are_found_by_label(clients: Clients) -> None:
    clients.create_endpoint("a", labels={"owner": "marquee"})
    clients.create_endpoint("b", labels={"owner": "somebody"})
    clients.create_endpoint("c")

    def names(text: str) -> list[str]:
        found = clients.endpoints.list_endpoints({"parent": LOCATION, "filter": text})
        return [endpoint.display_name for endpoint in found]

    assert names("labels.owner=marquee") == ["a"]
    assert names("labels.owner:*") == ["a", "b"]
    assert names('display_name="c" OR labels.owner=somebody') == ["b", "c"]


def test_update_takes_what_the_mask_names_and_refuses_an_old_etag(clients: Clients) -> None:
    made = clients.create_endpoint("before", labels={"a": "b"})
    change = {"name": made.name, "display_name": "after", "labels": {}}
    updated = clients.endpoints.update_endpoint(endpoint=change, update_mask={"paths": ["display_name"]})
    assert (updated.display_name, dict(updated.labels)) == ("after", {"a": "b"})
    assert updated.etag != made.etag
    with pytest.raises(exceptions.Conflict, match="etag"):
        clients.endpoints.update_endpoint(
            endpoint={**change, "etag": made.etag}, update_mask={"paths": ["display_name"]}
        )


def test_an_endpoint_is_deleted_once(clients: Clients) -> None:
    made = clients.create_endpoint()
    clients.endpoints.delete_endpoint(name=made.name).result(timeout=60)
    with pytest.raises(exceptions.NotFound):
        clients.endpoints.get_endpoint(name=made.name)
    with pytest.raises(exceptions.NotFound):
        clients.endpoints.delete_endpoint(name=made.name)
