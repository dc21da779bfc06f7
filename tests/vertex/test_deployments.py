"""Deploying: the checks, the processes, the state after a failure, and what may be deleted."""

from __future__ import annotations

import os
import threading
import time

import pytest
from google.api_core import exceptions
from local_vertex import IMAGE, MACHINE, Clients, LocalVertex


def test_a_deployed_model_answers_and_its_container_was_told_where_it_is(
    cloud: LocalVertex, clients: Clients
) -> None:
    model, endpoint = clients.upload("shapes"), clients.create_endpoint().name
    deployed = clients.deploy(endpoint, model.model)
    held = clients.endpoints.get_endpoint(name=endpoint)
    assert [each.id for each in held.deployed_models] == [deployed.id]
    assert dict(held.traffic_split) == {deployed.id: 100}
    assert (deployed.display_name, deployed.model_version_id) == ("shapes", "1")
    environment = cloud.containers.running[0].spec.environment
    assert environment["AIP_STORAGE_URI"] == "gs://models/shapes"
    assert environment["AIP_DEPLOYED_MODEL_ID"] == deployed.id
    assert environment["AIP_ENDPOINT_ID"] == endpoint.rpartition("/")[2]
    assert environment["AIP_ACCELERATOR_TYPE"] == "NVIDIA_TESLA_P100"


def test_replicas_are_as_many_as_the_least_asked_for_and_share_the_cores(
    cloud: LocalVertex, clients: Clients
) -> None:
    model, endpoint = clients.upload("shapes"), clients.create_endpoint().name
    deployed = clients.deploy(endpoint, model.model, replicas=2)
    assert len(cloud.containers.running) == 2
    cores = len(os.sched_getaffinity(0))
    assert {container.spec.threads for container in cloud.containers.running} == {max(1, cores // 2)}
    request = {
        "endpoint": endpoint,
        "deployed_model": {
            "id": deployed.id,
            "dedicated_resources": {"machine_spec": MACHINE, "min_replica_count": 1},
        },
        "update_mask": {"paths": ["dedicated_resources.min_replica_count"]},
    }
    clients.endpoints.mutate_deployed_model(request).result(timeout=60)
    assert len(cloud.containers.running) == 1
    [held] = clients.endpoints.get_endpoint(name=endpoint).deployed_models
    assert held.dedicated_resources.min_replica_count == 1
    assert held.dedicated_resources.max_replica_count == 2


def test_a_model_tells_where_it_is_deployed_and_an_endpoint_how_many_replicas_run(clients: Clients) -> None:
    model, endpoint = clients.upload("shapes"), clients.create_endpoint().name
    deployed = clients.deploy(endpoint, model.model, replicas=2)
    [place] = clients.models.get_model(name=model.model).deployed_models
    assert (place.endpoint, place.deployed_model_id) == (endpoint, deployed.id)
    [held] = clients.endpoints.get_endpoint(name=endpoint).deployed_models
    assert held.status.available_replica_count == 2


def test_one_id_may_be_used_on_two_endpoints_but_not_twice_on_one(clients: Clients) -> None:
    first, second = clients.create_endpoint("a").name, clients.create_endpoint("b").name
    shapes, letters = clients.upload("shapes").model, clients.upload("letters").model
    clients.deploy(first, shapes, id="17")
    clients.deploy(second, letters, id="17")
    assert clients.predict(first, {}).predictions[0]["archive"] == "shapes"
    assert clients.predict(second, {}).predictions[0]["archive"] == "letters"
    with pytest.raises(exceptions.Conflict):
        clients.begin_deploy(first, letters, id="17", split={"17": 50, "0": 50})
    clients.undeploy(second, "17")
    assert clients.predict(first, {}).predictions[0]["archive"] == "shapes"
    with pytest.raises(exceptions.BadRequest, match="deployed model id"):
        clients.begin_deploy(second, letters, id="seventeen")


def test_a_replica_that_dies_is_started_again(cloud: LocalVertex, clients: Clients) -> None:
    endpoint = clients.create_endpoint().name
    clients.deploy(endpoint, clients.upload("shapes").model)
    cloud.containers.running[0].stop()
    with pytest.raises(exceptions.ServiceUnavailable):
        clients.predict(endpoint, {}, retry=None)
    deadline = time.monotonic() + 60
    while not cloud.containers.running and time.monotonic() < deadline:
        time.sleep(0.05)
    assert clients.predict(endpoint, {}).predictions[0]["archive"] == "shapes"


def test_undeploying_lets_running_requests_finish(cloud: LocalVertex) -> None:
    clients = cloud.clients("grpc")
    endpoint = clients.create_endpoint().name
    deployed = clients.deploy(endpoint, clients.upload("shapes").model)
    answers: list[str] = []

    def ask() -> None:
        answers.append(clients.predict(endpoint, {"seconds": 2}).predictions[0]["archive"])

    asking = threading.Thread(target=ask)
    asking.start()
    while not cloud.containers.running[0].requests:
        time.sleep(0.01)
    clients.undeploy(endpoint, deployed.id)
    asking.join()
    assert answers == ["shapes"]
    assert [container.interrupted for container in cloud.containers.started] == [0]
    assert cloud.containers.running == []
    clients.close[0].close()


def test_the_container_s_own_words_are_in_the_error_and_nothing_is_left(
    cloud: LocalVertex, clients: Clients
) -> None:
    model, endpoint = clients.upload("broken"), clients.create_endpoint().name
    with pytest.raises(exceptions.FailedPrecondition, match="Model server never became ready") as failure:
        clients.deploy(endpoint, model.model)
    assert "No module named 'diffusers'" in str(failure.value)
    assert "model_log.log" in str(failure.value)
    assert list(clients.endpoints.get_endpoint(name=endpoint).deployed_models) == []
    assert cloud.containers.running == []
    clients.endpoints.delete_endpoint(name=endpoint).result(timeout=60)
    clients.models.delete_model(name=model.model).result(timeout=60)


def test_a_second_replica_that_fails_takes_the_first_with_it(cloud: LocalVertex, clients: Clients) -> None:
    model, endpoint = clients.upload("shapes"), clients.create_endpoint().name
    cloud.containers.most = 1
    with pytest.raises(exceptions.FailedPrecondition):
        clients.deploy(endpoint, model.model, replicas=2)
    assert cloud.containers.running == []


def test_removing_the_object_afterwards_does_not_matter(cloud: LocalVertex, clients: Clients) -> None:
    model, endpoint = clients.upload("shapes"), clients.create_endpoint().name
    clients.deploy(endpoint, model.model)
    cloud.store.delete("models", "shapes/model.mar")
    cloud.stop()
    cloud.start()
    again = cloud.clients("grpc")
    assert again.predict(endpoint, {"prompt": "x"}).predictions[0]["archive"] == "shapes"


def test_an_object_removed_before_is_missed_when_it_is_read(cloud: LocalVertex, clients: Clients) -> None:
    model, endpoint = clients.upload("shapes"), clients.create_endpoint().name
    cloud.store.delete("models", "shapes/model.mar")
    with pytest.raises(exceptions.NotFound, match="gs://models/shapes"):
        clients.deploy(endpoint, model.model)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"machine": {**MACHINE, "machine_type": "n1-standard-9"}}, "Machine type"),
        ({"machine": {**MACHINE, "machine_type": "g2-standard-8"}}, "not supported for machine type"),
        ({"machine": {**MACHINE, "accelerator_count": 3}}, "Accelerator count"),
        ({"machine": {**MACHINE, "accelerator_type": "NVIDIA_TESLA_K80"}}, "Accelerator type"),
        ({"replicas": 0}, "min_replica_count 0"),
        ({"replicas": 2, "max_replicas": 1}, "at most the maximum"),
        ({"split": {"0": 60}}, "needs to be 100, got 60"),
        ({"split": {"0": 50, "17": 50}}, "names deployed model 17"),
    ],
)
def test_deployments_that_google_refuses(
    cloud: LocalVertex, clients: Clients, fields: dict[str, object], text: str
) -> None:
    model, endpoint = clients.upload("shapes"), clients.create_endpoint().name
    with pytest.raises(exceptions.BadRequest, match=text):
        clients.begin_deploy(endpoint, model.model, **fields)
    assert cloud.containers.started == []


def test_what_is_not_there_is_not_deployed(clients: Clients) -> None:
    model, endpoint = clients.upload("shapes"), clients.create_endpoint().name
    with pytest.raises(exceptions.NotFound, match="Model"):
        clients.begin_deploy(endpoint, f"{model.model}@7")
    with pytest.raises(exceptions.NotFound, match="Endpoint"):
        clients.begin_deploy(f"{endpoint}0", model.model)


def test_nothing_is_deleted_under_what_uses_it(cloud: LocalVertex, clients: Clients) -> None:
    model, endpoint = clients.upload("shapes"), clients.create_endpoint().name
    clients.upload("shapes", parent_model=model.model, version_aliases=["default"])
    deployed = clients.deploy(endpoint, f"{model.model}@1")
    with pytest.raises(exceptions.BadRequest, match="deployed"):
        clients.models.delete_model(name=model.model)
    with pytest.raises(exceptions.BadRequest, match="deployed"):
        clients.models.delete_model_version(name=f"{model.model}@1")
    with pytest.raises(exceptions.BadRequest, match="undeploy"):
        clients.endpoints.delete_endpoint(name=endpoint)
    clients.undeploy(endpoint, deployed.id)
    assert cloud.containers.running == []
    clients.models.delete_model_version(name=f"{model.model}@1").result(timeout=60)
    clients.endpoints.delete_endpoint(name=endpoint).result(timeout=60)
    clients.models.delete_model(name=model.model).result(timeout=60)
    assert not any((cloud.folder / "vertex" / "deployed").iterdir())


def test_nothing_is_deleted_while_it_is_being_deployed(cloud: LocalVertex, clients: Clients) -> None:
    model, endpoint = clients.upload("shapes"), clients.create_endpoint().name
    cloud.containers.gate.clear()
    operation = clients.begin_deploy(endpoint, model.model)
    assert not operation.done()
    with pytest.raises(exceptions.BadRequest):
        clients.models.delete_model(name=model.model)
    with pytest.raises(exceptions.BadRequest):
        clients.endpoints.delete_endpoint(name=endpoint)
    cloud.containers.gate.set()
    operation.result(timeout=60)


def test_a_model_with_traffic_is_not_undeployed_from_among_others(clients: Clients) -> None:
    endpoint = clients.create_endpoint().name
    first = clients.deploy(endpoint, clients.upload("shapes").model)
    second = clients.deploy(endpoint, clients.upload("letters").model, split={first.id: 90, "0": 10})
    with pytest.raises(exceptions.BadRequest, match="still has traffic"):
        clients.undeploy(endpoint, second.id)
    clients.undeploy(endpoint, first.id, traffic_split={second.id: 100})
    held = clients.endpoints.get_endpoint(name=endpoint)
    assert dict(held.traffic_split) == {second.id: 100}
    clients.undeploy(endpoint, second.id)
    assert dict(clients.endpoints.get_endpoint(name=endpoint).traffic_split) == {}
    with pytest.raises(exceptions.NotFound):
        clients.undeploy(endpoint, second.id)


def test_an_own_image_in_artifact_registry_serves_under_its_own_route(
    cloud: LocalVertex, clients: Clients
) -> None:
    image = "us-central1-docker.pkg.dev/marquee-local/images/marquee:1"
    spec = {
        "image_uri": image,
        "predict_route": "/invocations",
        "health_route": "/ping",
        "ports": [{"container_port": 9090}],
        "env": [{"name": "MARQUEE_LEVEL", "value": "3"}],
    }
    model = clients.upload("shapes", container_spec=spec)
    endpoint = clients.create_endpoint().name
    clients.deploy(endpoint, model.model)
    clients.predict(endpoint, {"prompt": "x"})
    [container] = cloud.containers.running
    assert [path for path, _, _ in container.requests] == ["/invocations"]
    assert container.spec.environment["MARQUEE_LEVEL"] == "3"
    assert container.spec.environment["AIP_HTTP_PORT"] == "9090"
    assert not container.spec.prebuilt
    assert image != IMAGE
