"""Predicting: the request to the container, the answer to the caller, and every limit."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from google.api_core import exceptions
from local_vertex import Clients, LocalVertex, tokens

SHARED_LIMIT = 1_572_864
DEDICATED_LIMIT = 10_000_000


@pytest.fixture
def endpoint(clients: Clients) -> str:
    """A shared endpoint with one deployed model."""
    name = str(clients.create_endpoint().name)
    clients.deploy(name, clients.upload("shapes").model)
    return name


@dataclass
class Dedicated:
    """Posts to a dedicated endpoint's own name, as the SDK does: HTTPS and plain JSON."""

    url: str
    ca_file: str

    def post(self, body: Any, verb: str = "predict", **headers: str) -> requests.Response:
        data = body if isinstance(body, bytes) else json.dumps(body)
        token = tokens().issue()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}", **headers}
        return requests.post(
            f"{self.url}:{verb}", data=data, headers=headers, verify=self.ca_file, timeout=60
        )


@pytest.fixture
def dedicated(cloud: LocalVertex) -> Iterator[Dedicated]:
    """A dedicated endpoint with one deployed model; it waits two seconds for an answer."""
    clients = cloud.clients("grpc")
    timeout = {"inference_timeout": {"seconds": 2}}
    made = clients.create_endpoint("d", dedicated_endpoint_enabled=True, client_connection_config=timeout)
    clients.deploy(made.name, clients.upload("shapes").model)
    yield Dedicated(f"https://{made.dedicated_endpoint_dns}/v1/{made.name}", str(cloud.certificate.ca_file))
    clients.close[0].close()


def received(cloud: LocalVertex) -> list[Any]:
    return [json.loads(body) for container in cloud.containers.running for _, _, body in container.requests]


def test_numbers_arrive_as_doubles_and_the_answer_names_the_model(
    cloud: LocalVertex, clients: Clients, endpoint: str
) -> None:
    answer = clients.predict(endpoint, {"prompt": "x", "seed": 25}, "bare", parameters={"steps": 3})
    assert received(cloud) == [
        {"instances": [{"prompt": "x", "seed": 25.0}, "bare"], "parameters": {"steps": 3.0}}
    ]
    [(_, _, body)] = cloud.containers.running[0].requests
    assert b"25.0" in body
    [deployed] = clients.endpoints.get_endpoint(name=endpoint).deployed_models
    assert (answer.deployed_model_id, answer.model) == (deployed.id, deployed.model)
    assert (answer.model_version_id, answer.model_display_name) == ("1", "shapes")
    assert answer.predictions[1]["instance"] == "bare"


def test_no_parameters_means_none_sent(cloud: LocalVertex, clients: Clients, endpoint: str) -> None:
    clients.predict(endpoint, {"nested": [None, True, {"a": 1.5}]})
    assert received(cloud) == [{"instances": [{"nested": [None, True, {"a": 1.5}]}]}]


def test_a_request_over_the_limit_never_reaches_the_container(
    cloud: LocalVertex, clients: Clients, endpoint: str
) -> None:
    with pytest.raises(exceptions.BadRequest, match="exceeds the limit: 1572864 bytes"):
        clients.predict(endpoint, {"prompt": "x" * SHARED_LIMIT})
    clients.predict(endpoint, {"prompt": "x" * (SHARED_LIMIT - 1000)})
    assert len(received(cloud)) == 1


def test_an_answer_over_the_limit_is_refused_in_google_s_words(clients: Clients, endpoint: str) -> None:
    number = endpoint.rpartition("/")[2]
    with pytest.raises(exceptions.BadRequest, match=f"endpoint_id: {number} .*Response size too large"):
        clients.predict(endpoint, {"bytes": SHARED_LIMIT})
    assert (
        len(clients.predict(endpoint, {"bytes": SHARED_LIMIT - 1000}).predictions[0]) == SHARED_LIMIT - 1000
    )


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, exceptions.BadRequest),
        (404, exceptions.NotFound),
        (413, exceptions.BadRequest),
        (429, exceptions.TooManyRequests),
        (500, exceptions.InternalServerError),
        (507, exceptions.InternalServerError),
        (503, exceptions.ServiceUnavailable),
    ],
)
def test_a_container_s_error_is_an_exception_with_its_own_text(
    clients: Clients, endpoint: str, status: int, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match="Prediction failed"):
        clients.predict(endpoint, {"status": status, "body": '{"message": "Prediction failed"}'}, retry=None)


@pytest.mark.parametrize("body", ["[1]", '{"answers": []}', '{"predictions": {}}', "no json"])
def test_an_answer_without_predictions_is_an_error(clients: Clients, endpoint: str, body: str) -> None:
    with pytest.raises(exceptions.InternalServerError, match="list `predictions`"):
        clients.predict(endpoint, {"body": body}, retry=None)


def test_a_container_that_hangs_up_is_unavailable(clients: Clients, endpoint: str) -> None:
    with pytest.raises(exceptions.ServiceUnavailable, match="closed the connection"):
        clients.predict(endpoint, {"cut": 1}, retry=None)


def test_an_endpoint_without_traffic_says_so(clients: Clients) -> None:
    empty = clients.create_endpoint().name
    with pytest.raises(exceptions.BadRequest, match="doesn't have traffic_split"):
        clients.predict(empty, {"prompt": "x"})


def test_traffic_goes_by_weight(clients: Clients, endpoint: str) -> None:
    [first] = clients.endpoints.get_endpoint(name=endpoint).deployed_models
    second = clients.deploy(endpoint, clients.upload("letters").model, split={first.id: 70, "0": 30})
    archives = Counter(clients.predict(endpoint, {}).predictions[0]["archive"] for _ in range(50))
    assert 2 <= archives["letters"] <= 32  # by chance: 15 on average
    change = {"name": endpoint, "traffic_split": {second.id: 100}}
    clients.endpoints.update_endpoint(endpoint=change, update_mask={"paths": ["traffic_split"]})
    assert {clients.predict(endpoint, {}).predictions[0]["archive"] for _ in range(5)} == {"letters"}


def test_two_versions_answer_each_for_itself(cloud: LocalVertex, clients: Clients) -> None:
    first = clients.upload("shapes", model_id="shapes")
    clients.upload("letters", parent_model=first.model)
    endpoint = clients.create_endpoint().name
    one = clients.deploy(endpoint, f"{first.model}@1")
    clients.deploy(endpoint, f"{first.model}@2", split={one.id: 50, "0": 50})
    answers = [clients.predict(endpoint, {}) for _ in range(30)]  # who answers is chance
    told = {answer.model_version_id: answer.predictions[0]["archive"] for answer in answers}
    assert told == {"1": "shapes", "2": "letters"}


def test_the_least_busy_replica_gets_the_next_request(cloud: LocalVertex) -> None:
    clients = cloud.clients("grpc")
    endpoint = clients.create_endpoint().name
    clients.deploy(endpoint, clients.upload("shapes").model, replicas=2)
    answers = []

    def ask(seconds: float) -> None:
        answers.append(clients.predict(endpoint, {"seconds": seconds}).predictions[0]["replica"])

    slow = threading.Thread(target=ask, args=(3,))
    slow.start()
    while not received(cloud):
        pass
    for _ in range(4):
        ask(0)
    slow.join()
    assert len(set(answers[:4])) == 1
    assert answers[4] not in answers[:4]
    clients.close[0].close()


def test_a_dedicated_endpoint_keeps_ints_and_names_the_model(
    cloud: LocalVertex, dedicated: Dedicated
) -> None:
    answer = dedicated.post({"instances": [{"seed": 2**53 + 1}]})
    assert answer.status_code == 200
    assert received(cloud) == [{"instances": [{"seed": 2**53 + 1}]}]
    document = answer.json()
    assert document["predictions"][0]["instance"] == {"seed": 2**53 + 1}
    assert document["modelVersionId"] == "1"
    assert document["model"].startswith("projects/123456789012/locations/us-central1/models/")
    assert document["deployedModelId"].isdigit()


def test_a_dedicated_endpoint_takes_ten_megabytes_both_ways(dedicated: Dedicated) -> None:
    assert dedicated.post({"instances": [{"bytes": DEDICATED_LIMIT - 1000}]}).status_code == 200
    assert dedicated.post({"instances": ["x" * (DEDICATED_LIMIT - 1000)]}).status_code == 200
    too_long = dedicated.post({"instances": ["x" * DEDICATED_LIMIT]})
    assert too_long.status_code == 400
    assert "exceeds the limit: 10000000 bytes" in too_long.json()["error"]["message"]
    assert "Response size too large" in dedicated.post({"instances": [{"bytes": DEDICATED_LIMIT}]}).text


def test_an_endpoint_gives_up_after_its_inference_timeout(dedicated: Dedicated) -> None:
    answer = dedicated.post({"instances": [{"seconds": 6}]})
    assert (answer.status_code, answer.json()["error"]["status"]) == (504, "DEADLINE_EXCEEDED")
    assert dedicated.post({"instances": [{"seconds": 0}]}).status_code == 200


def test_each_kind_of_endpoint_answers_only_at_its_own_name(
    cloud: LocalVertex, clients: Clients, dedicated: Dedicated, endpoint: str
) -> None:
    name = dedicated.url.partition("/v1/")[2]
    with pytest.raises(exceptions.BadRequest, match="dedicated dns name"):
        clients.predict(name, {"prompt": "x"})
    assert Dedicated(dedicated.url.replace(name, endpoint), dedicated.ca_file).post({}).status_code == 404


def test_the_name_google_gives_to_dedicated_endpoints_works_through_the_rest_port(
    cloud: LocalVertex, dedicated: Dedicated
) -> None:
    assert cloud.servers
    name = dedicated.url.partition("/v1/")[2]
    there = Dedicated(f"{cloud.servers.rest_url}/v1/{name}", dedicated.ca_file)
    host = "17.us-central1-123456789012.prediction.vertexai.goog"
    assert there.post({"instances": ["x"]}).status_code == 400
    assert there.post({"instances": ["x"]}, Host=host).status_code == 200


@pytest.mark.parametrize("verb", ["rawPredict", "streamRawPredict"])
def test_raw_predict_passes_bodies_through_untouched(
    cloud: LocalVertex, dedicated: Dedicated, verb: str
) -> None:
    body = b'{"instances":  [25]}'
    answer = dedicated.post(body, verb, **{"Content-Type": "application/x-other"})
    assert cloud.containers.running[0].requests == [("/predictions/model", "application/x-other", body)]
    assert "deployedModelId" not in answer.json()
    assert answer.headers["X-Vertex-AI-Deployed-Model-Id"]
    assert answer.headers["X-Vertex-AI-Model"].startswith("projects/123456789012/")
    refused = dedicated.post({"instances": [{"status": 400, "body": "own words"}]}, verb)
    assert (refused.status_code, refused.text) == (400, "own words")


def test_raw_predict_over_grpc_gives_the_body_and_the_headers(cloud: LocalVertex) -> None:
    clients = cloud.clients("grpc")
    endpoint = clients.create_endpoint().name
    deployed = clients.deploy(endpoint, clients.upload("shapes").model)
    body = {"data": b'{"instances": [25]}', "content_type": "application/json"}
    answer = clients.predictions.raw_predict(endpoint=endpoint, http_body=body)
    assert json.loads(answer.data)["predictions"][0]["instance"] == 25
    with pytest.raises(exceptions.BadRequest, match="only supported on dedicated"):
        list(clients.predictions.stream_raw_predict({"endpoint": endpoint, "http_body": body}))
    wrong = {**body, "data": b'{"instances": [{"status": 400, "body": "own words"}]}'}
    with pytest.raises(exceptions.BadRequest, match="own words"):
        clients.predictions.raw_predict(endpoint=endpoint, http_body=wrong)
    assert deployed.id
    clients.close[0].close()
