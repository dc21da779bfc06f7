"""Long-running operations: pending, found by another client, awaited, cancelled, alive after a restart."""

from __future__ import annotations

import time
from typing import Any

import pytest
from google.api_core import exceptions, operation, operations_v1
from google.cloud.aiplatform_v1.types import DeployModelOperationMetadata, DeployModelResponse
from google.longrunning import operations_pb2
from local_vertex import LOCATION, NUMBERED, Clients, LocalVertex


@pytest.fixture
def pending(cloud: LocalVertex, clients: Clients) -> Any:
    """A deployment that is held back by its container, and the endpoint's name."""
    cloud.containers.gate.clear()
    endpoint = clients.create_endpoint("pictures", "pictures").name
    return clients.begin_deploy(endpoint, clients.upload("shapes").model)


def in_location(clients: Clients, text: str = "") -> list[Any]:
    request = operations_pb2.ListOperationsRequest(name=LOCATION, filter=text)
    return list(clients.endpoints.list_operations(request).operations)


def wait_for(clients: Clients, name: str, **timeout: int) -> Any:
    request = operations_pb2.WaitOperationRequest(name=name, timeout=timeout)
    answer = clients.endpoints.wait_operation(request)
    # Over gRPC the SDK has no deserializer for this one answer and hands out its bytes.
    return operations_pb2.Operation.FromString(answer) if isinstance(answer, bytes) else answer


def test_a_deployment_is_pending_until_its_container_is_ready(
    cloud: LocalVertex, clients: Clients, pending: Any
) -> None:
    assert not pending.done()
    name = pending.operation.name
    assert name.startswith(f"{NUMBERED}/endpoints/pictures/operations/")
    assert pending.metadata.generic_metadata.create_time
    cloud.containers.gate.set()
    assert pending.result(timeout=60).deployed_model.id
    assert clients.endpoints.get_operation(operations_pb2.GetOperationRequest(name=name)).done


def test_another_client_finds_what_still_runs_and_awaits_it(
    cloud: LocalVertex, clients: Clients, pending: Any
) -> None:
    assert [each.name for each in in_location(clients, "done=false")] == [pending.operation.name]
    under = operations_pb2.ListOperationsRequest(name=f"{LOCATION}/endpoints/pictures")
    kinds = [each.metadata.TypeName() for each in clients.endpoints.list_operations(under).operations]
    assert [kind.rpartition(".")[2] for kind in kinds] == [
        "CreateEndpointOperationMetadata",
        "DeployModelOperationMetadata",
    ]
    [found] = in_location(clients, "done=false")
    cloud.containers.gate.set()
    assert wait_for(clients, found.name, seconds=60).done
    assert in_location(clients, "done=false") == []


def test_waiting_ends_with_its_timeout(clients: Clients, pending: Any) -> None:
    assert not wait_for(clients, pending.operation.name, nanos=1000).done


def test_an_operation_is_known_by_its_number_alone_as_well(clients: Clients, pending: Any) -> None:
    number = pending.operation.name.rpartition("/")[2]
    request = operations_pb2.GetOperationRequest(name=f"{LOCATION}/operations/{number}")
    assert clients.endpoints.get_operation(request).name == pending.operation.name
    with pytest.raises(exceptions.NotFound):
        clients.endpoints.get_operation(operations_pb2.GetOperationRequest(name=f"{LOCATION}/operations/1"))


def test_a_cancelled_deployment_ends_and_leaves_nothing(
    cloud: LocalVertex, clients: Clients, pending: Any
) -> None:
    name = pending.operation.name
    with pytest.raises(exceptions.BadRequest, match="not done"):
        clients.endpoints.delete_operation(operations_pb2.DeleteOperationRequest(name=name))
    clients.endpoints.cancel_operation(operations_pb2.CancelOperationRequest(name=name))
    with pytest.raises(exceptions.GoogleAPICallError):
        pending.result(timeout=60)
    endpoint = clients.endpoints.get_endpoint(name=f"{LOCATION}/endpoints/pictures")
    assert list(endpoint.deployed_models) == []
    assert cloud.containers.running == []
    clients.endpoints.delete_operation(operations_pb2.DeleteOperationRequest(name=name))
    with pytest.raises(exceptions.NotFound):
        clients.endpoints.get_operation(operations_pb2.GetOperationRequest(name=name))


def test_an_unfinished_deployment_is_taken_up_again_after_a_restart(
    cloud: LocalVertex, clients: Clients, pending: Any
) -> None:
    cloud.stop()
    assert cloud.containers.running == []
    cloud.start()
    again = cloud.clients("grpc")
    [unfinished] = in_location(again, "done=false")
    assert unfinished.name == pending.operation.name
    cloud.containers.gate.set()
    channel = again.close[0]
    waiting = operation.from_gapic(
        unfinished,
        operations_v1.OperationsClient(channel),
        DeployModelResponse,
        metadata_type=DeployModelOperationMetadata,
    )
    deployed = waiting.result(timeout=60).deployed_model
    answer = again.predict(f"{LOCATION}/endpoints/pictures", {"prompt": "x"})
    assert answer.deployed_model_id == deployed.id
    channel.close()


def test_everything_is_there_after_a_restart_and_serves_again(cloud: LocalVertex, clients: Clients) -> None:
    model = clients.upload("shapes", model_id="shapes", labels={"owner": "marquee"})
    endpoint = clients.create_endpoint("pictures", "pictures").name
    deployed = clients.deploy(endpoint, model.model)
    cloud.stop()
    cloud.start()
    again = cloud.clients("grpc")
    answer = again.predict(endpoint, {"prompt": "x"})
    assert (answer.deployed_model_id, answer.predictions[0]["archive"]) == (deployed.id, "shapes")
    assert dict(again.models.get_model(name=model.model).labels) == {"owner": "marquee"}
    assert len(in_location(again)) == 3
    again.undeploy(endpoint, deployed.id)
    assert cloud.containers.running == []
    again.close[0].close()


def test_a_model_that_does_not_start_again_is_not_waited_for(cloud: LocalVertex, clients: Clients) -> None:
    endpoint = clients.create_endpoint().name
    clients.deploy(endpoint, clients.upload("shapes").model)
    cloud.stop()
    cloud.containers.most = 0
    cloud.start()
    again = cloud.clients("grpc")
    started = time.monotonic()
    with pytest.raises(exceptions.ServiceUnavailable, match="No replica"):
        again.predict(endpoint, {"prompt": "x"}, retry=None)
    assert time.monotonic() - started < 50  # far below the endpoint's own limit of 60 s
    again.close[0].close()
