"""The SDK raises the same exception classes over gRPC and REST."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.api_core import exceptions
from local_vertex import IMAGE, LocalVertex, tokens

from pipeline.cloud.credentials import LocalCredentials


@pytest.fixture
def sdk(cloud: LocalVertex) -> Iterator[Any]:
    """google.cloud.aiplatform over REST: over gRPC it would read root certificates once for all tests."""
    from google.cloud import aiplatform

    assert cloud.servers
    aiplatform.init(
        project="marquee-local",
        location="us-central1",
        api_endpoint=cloud.servers.rest_url,
        api_transport="rest",
        credentials=LocalCredentials(tokens()),
    )
    yield aiplatform
    aiplatform.initializer.global_config.__init__()


def upload(sdk: Any, folder: str = "shapes", **fields: Any) -> Any:
    return sdk.Model.upload(
        display_name=folder,
        serving_container_image_uri=fields.pop("image", IMAGE),
        artifact_uri=f"gs://models/{folder}",
        **fields,
    )


def deploy(model: Any, endpoint: Any, **fields: Any) -> None:
    hardware = {
        "machine_type": "n1-standard-8",
        "accelerator_type": "NVIDIA_TESLA_P100",
        "accelerator_count": 1,
    }
    model.deploy(endpoint=endpoint, **{**hardware, **fields})


def test_a_model_goes_all_the_way_and_back(cloud: LocalVertex, sdk: Any) -> None:
    model, endpoint = upload(sdk), sdk.Endpoint.create(display_name="pictures")
    deploy(model, endpoint, traffic_percentage=100)
    assert endpoint.predict(instances=[{"prompt": "x"}]).predictions[0]["archive"] == "shapes"
    second = upload(sdk, "letters", parent_model=model.resource_name, is_default_version=True)
    assert second.version_id == "2"
    deploy(second, endpoint, traffic_percentage=50)
    # The share is a chance: 30 requests miss one of the two once in half a billion runs.
    told = {endpoint.predict(instances=[{}]).model_version_id for _ in range(30)}
    assert told == {"1", "2"}
    endpoint.delete(force=True)
    model.delete()
    assert cloud.containers.running == []
    assert sdk.Model.list() == sdk.Endpoint.list() == []


def test_a_mistake_in_a_request_is_a_bad_request(sdk: Any) -> None:
    with pytest.raises(exceptions.BadRequest, match="no longer available"):
        upload(sdk, image=IMAGE.replace("2-4", "1-12"))
    with pytest.raises(exceptions.NotFound, match="gs://models/absent"):
        upload(sdk, "absent")
    with pytest.raises(exceptions.NotFound):
        sdk.Endpoint("17").gca_resource  # noqa: B018 - reading it asks the service


def test_an_exhausted_quota_is_too_many_requests(cloud: LocalVertex, sdk: Any) -> None:
    model, endpoint = upload(sdk), sdk.Endpoint.create(display_name="pictures")
    cloud.fault("quota-exhausted,count=1")
    with pytest.raises(exceptions.TooManyRequests, match="p100"):
        deploy(model, endpoint)


def test_a_failure_inside_an_operation_has_its_grpc_class_over_rest_too(sdk: Any) -> None:
    model, endpoint = upload(sdk, "broken"), sdk.Endpoint.create(display_name="pictures")
    with pytest.raises(exceptions.FailedPrecondition, match="never became ready"):
        deploy(model, endpoint)


def test_a_service_that_is_down_is_a_connection_error_over_rest(cloud: LocalVertex, sdk: Any) -> None:
    import requests

    cloud.stop()
    with pytest.raises((requests.ConnectionError, exceptions.RetryError)):
        sdk.Endpoint.list()
