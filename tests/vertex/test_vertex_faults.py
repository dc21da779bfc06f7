"""Faults on request: made in the cloud, seen by Google's clients as the service would show them."""

from __future__ import annotations

import pytest
from google.api_core import exceptions
from local_vertex import LOCATION, Clients, LocalVertex


@pytest.fixture
def endpoint(clients: Clients) -> str:
    return str(clients.create_endpoint("pictures").name)


@pytest.fixture
def model(clients: Clients) -> str:
    return str(clients.upload("shapes").model)


def test_an_exhausted_quota_is_named(cloud: LocalVertex, clients: Clients, endpoint: str, model: str) -> None:
    cloud.fault("quota-exhausted,target=DeployModel/shapes,count=1")
    with pytest.raises(exceptions.TooManyRequests, match="custom_model_serving_nvidia_p100_gpus"):
        clients.begin_deploy(endpoint, model)
    assert clients.deploy(endpoint, model).id


@pytest.mark.parametrize("method", ["UploadModel", "DeployModel", "Predict", "GetEndpoint", "ListModels"])
def test_permission_is_denied_to_one_method(
    cloud: LocalVertex, clients: Clients, endpoint: str, model: str, method: str
) -> None:
    cloud.fault(f"permission-denied,target={method}/*,count=1")
    call = {
        "UploadModel": lambda: clients.upload("shapes"),
        "DeployModel": lambda: clients.begin_deploy(endpoint, model),
        "Predict": lambda: clients.predict(endpoint, {"prompt": "x"}),
        "GetEndpoint": lambda: clients.endpoints.get_endpoint(name=endpoint),
        "ListModels": lambda: clients.models.list_models(parent=LOCATION),
    }[method]
    with pytest.raises(exceptions.Forbidden, match=r"Permission 'aiplatform\.\w+' denied"):
        call()
    assert cloud.faults.all() == []


def test_a_fault_for_one_display_name_spares_the_others(cloud: LocalVertex, clients: Clients) -> None:
    cloud.fault("permission-denied,target=UploadModel/letters")
    clients.upload("shapes")
    with pytest.raises(exceptions.Forbidden):
        clients.upload("letters")


def test_the_service_agent_may_not_read_the_bucket(
    cloud: LocalVertex, clients: Clients, endpoint: str, model: str
) -> None:
    cloud.fault("storage-permission-denied,target=models/shapes/*,count=1")
    with pytest.raises(exceptions.Forbidden, match=r"gcp-sa-aiplatform.*storage\.objects\.get"):
        clients.deploy(endpoint, model)


def test_a_container_that_never_becomes_ready(
    cloud: LocalVertex, clients: Clients, endpoint: str, model: str
) -> None:
    cloud.fault("never-ready,target=DeployModel/shapes,count=1")
    with pytest.raises(exceptions.FailedPrecondition, match="Model server never became ready"):
        clients.deploy(endpoint, model)
    assert list(clients.endpoints.get_endpoint(name=endpoint).deployed_models) == []
    assert cloud.containers.started == []


def test_a_slow_start_takes_its_time_by_the_cloud_s_clock(
    cloud: LocalVertex, clients: Clients, endpoint: str, model: str
) -> None:
    cloud.fault("slow-start,seconds=200,count=1")
    before = cloud.clock.now()
    operation = clients.begin_deploy(endpoint, model)
    assert not operation.done()
    operation.result(timeout=60)
    assert (cloud.clock.now() - before).total_seconds() >= 200


def test_an_endpoint_that_times_out(cloud: LocalVertex, clients: Clients, endpoint: str, model: str) -> None:
    clients.deploy(endpoint, model)
    cloud.fault("endpoint-timeout,count=1")
    with pytest.raises(exceptions.GatewayTimeout, match="60 seconds"):
        clients.predict(endpoint, {"prompt": "x"}, retry=None)
    assert clients.predict(endpoint, {"prompt": "x"}).predictions


def test_a_model_scaled_to_zero_drops_requests_until_it_is_up(
    cloud: LocalVertex, clients: Clients, endpoint: str, model: str
) -> None:
    clients.deploy(endpoint, model)
    cloud.fault("scaled-to-zero,seconds=300")
    with pytest.raises(exceptions.TooManyRequests, match="not yet ready for inference"):
        clients.predict(endpoint, {"prompt": "x"}, retry=None)
    with pytest.raises(exceptions.TooManyRequests):
        clients.predict(endpoint, {"prompt": "x"}, retry=None)
    cloud.clock.sleep(300)
    assert clients.predict(endpoint, {"prompt": "x"}).predictions


@pytest.mark.parametrize("method", ["UploadModel", "DeployModel"])
def test_an_operation_that_fails_after_minutes(
    cloud: LocalVertex, clients: Clients, endpoint: str, model: str, method: str
) -> None:
    cloud.fault(f"operation-fails,target={method}/shapes,seconds=120")
    models = len(list(clients.models.list_models(parent=LOCATION)))
    with pytest.raises(exceptions.InternalServerError, match="Internal error"):
        clients.upload("shapes") if method == "UploadModel" else clients.deploy(endpoint, model)
    assert len(list(clients.models.list_models(parent=LOCATION))) == models
    assert cloud.containers.started == []


def test_a_service_that_is_away_for_a_moment(cloud: LocalVertex, clients: Clients, endpoint: str) -> None:
    cloud.fault("unavailable,target=GetEndpoint/*")
    with pytest.raises(exceptions.ServiceUnavailable):
        clients.endpoints.get_endpoint(name=endpoint, retry=None)
    assert clients.endpoints.get_endpoint(name=endpoint).name == endpoint


def test_permissions_can_be_asked_about(cloud: LocalVertex, clients: Clients, endpoint: str) -> None:
    request = {"resource": endpoint, "permissions": ["aiplatform.endpoints.predict"]}
    answer = clients.endpoints.test_iam_permissions(request)
    assert list(answer.permissions) == ["aiplatform.endpoints.predict"]
    cloud.fault("permission-denied")
    assert list(clients.endpoints.test_iam_permissions(request).permissions) == []


def test_locations_are_listed(clients: Clients) -> None:
    from google.cloud.location import locations_pb2

    listed = clients.models.list_locations(locations_pb2.ListLocationsRequest(name="projects/marquee-local"))
    assert "us-central1" in [location.location_id for location in listed.locations]
