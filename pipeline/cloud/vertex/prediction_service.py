"""google.cloud.aiplatform.v1.PredictionService: sends a request to a replica, within the limits."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from google.cloud.aiplatform_v1.types import PredictResponse
from google.protobuf import json_format, struct_pb2

from pipeline import rules
from pipeline.cloud.clock import Clock
from pipeline.cloud.faults import FaultBook
from pipeline.cloud.vertex.calls import Call, Handler, RawAnswer
from pipeline.cloud.vertex.checks import enforce, failure_of
from pipeline.cloud.vertex.containers import TooLarge, TooSlow, post
from pipeline.cloud.vertex.deployments import Deployments
from pipeline.cloud.vertex.endpoint_service import inference_timeout
from pipeline.cloud.vertex.endpoints import Endpoints, find_deployed
from pipeline.cloud.vertex.failures import ServiceFailure, code_of_http_status, not_found
from pipeline.cloud.vertex.names import read_endpoint
from pipeline.cloud.vertex.placement import place_key
from pipeline.cloud.vertex.traffic import TrafficSplitter


class PredictionService:
    """Predict and RawPredict, on shared endpoints and, by their own host name, on dedicated ones."""

    def __init__(
        self, endpoints: Endpoints, deployments: Deployments, clock: Clock, faults: FaultBook
    ) -> None:
        self._endpoints = endpoints
        self._deployments = deployments
        self._clock = clock
        self._faults = faults
        self._splitter = TrafficSplitter()
        self._waking = _Waking(clock, faults)

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "PredictionService.Predict": self.predict,
            "PredictionService.RawPredict": self.raw_predict,
            "PredictionService.StreamRawPredict": self.stream_raw_predict,
        }

    def predict(self, request: Any, call: Call) -> Any:
        """The container's predictions. A dedicated endpoint speaks plain JSON, which keeps ints as ints."""
        endpoint = self._endpoint(request.endpoint, call)
        enforce(rules.check_request_size(call.size, call.dedicated))
        body = call.body if call.dedicated and call.body is not None else _body(request)
        deployed, answer = self._ask(endpoint, body, "application/json", call)
        document = _read_predictions(answer)
        facts = {
            "deployed_model_id": deployed.id,
            "model": deployed.model,
            "model_version_id": deployed.model_version_id,
            "model_display_name": deployed.display_name,
        }
        if call.dedicated:
            camel = {_camel(name): value for name, value in facts.items()}
            return RawAnswer(200, json.dumps({**document, **camel}).encode())
        response = PredictResponse(**facts)
        values = struct_pb2.ListValue()
        json_format.ParseDict(document["predictions"], values)
        PredictResponse.pb(response).predictions.extend(values.values)
        return response

    def raw_predict(self, request: Any, call: Call) -> RawAnswer:
        """The container's answer as it is, with headers that name the model."""
        endpoint = self._endpoint(request.endpoint, call)
        enforce(rules.check_request_size(call.size, call.dedicated))
        body, kind = call.body, call.content_type
        if body is None:
            body, kind = request.http_body.data, request.http_body.content_type or kind
        deployed, answer = self._ask(endpoint, body, kind, call)
        headers = {
            "X-Vertex-AI-Deployed-Model-Id": deployed.id,
            "X-Vertex-AI-Model": deployed.model,
            "X-Vertex-AI-Model-Version-Id": deployed.model_version_id,
        }
        return RawAnswer(answer.status, answer.body, answer.content_type, headers)

    def stream_raw_predict(self, request: Any, call: Call) -> RawAnswer:
        """RawPredict's answer in one piece; only dedicated endpoints stream custom models (SDK)."""
        if not call.dedicated:
            raise failure_of("stream_raw_predict", "endpoint", request.endpoint)
        return self.raw_predict(request, call)

    def _endpoint(self, name: str, call: Call) -> Any:
        endpoint = self._endpoints.find(read_endpoint(name))
        if call.dedicated and not endpoint.dedicated_endpoint_enabled:
            raise not_found("Endpoint", name)
        if endpoint.dedicated_endpoint_enabled and not call.dedicated:
            raise failure_of("dedicated_name", "endpoint", endpoint.dedicated_endpoint_dns)
        return endpoint

    def _ask(self, endpoint: Any, body: bytes, content_type: str, call: Call) -> tuple[Any, RawAnswer]:
        """Send a body to a replica of the model that the split chooses, within the endpoint's limits."""
        if not endpoint.traffic_split:
            raise failure_of("no_traffic", "endpoint", endpoint.name)
        chosen = self._splitter.choose(endpoint.name, dict(endpoint.traffic_split))
        deployed = find_deployed(endpoint, chosen)
        self._waking.check(deployed)
        seconds = rules.predict_timeout(call.dedicated, inference_timeout(endpoint))
        too_slow = failure_of("predict_timeout", "timeout", seconds, limit=seconds)
        if self._faults.take("endpoint-timeout", f"Predict/{deployed.display_name}") is not None:
            self._clock.sleep(seconds)
            raise too_slow
        replicas = self._deployments.replicas(place_key(endpoint.name, deployed.id), seconds)
        if replicas is None:
            raise ServiceFailure("UNAVAILABLE", f"No replica of deployed model {deployed.id} is running.")
        endpoint_id = endpoint.name.rpartition("/")[2]
        limit = rules.table().limits(call.dedicated).response_bytes
        try:
            with replicas.lend() as url:
                return deployed, post(url, body, content_type, seconds, limit)
        except TooSlow:
            raise too_slow from None
        except TooLarge as error:
            enforce(rules.check_response_size(error.args[0], call.dedicated, endpoint_id))
            raise
        except OSError as error:
            raise ServiceFailure("UNAVAILABLE", f"The model server closed the connection: {error}") from error


class _Waking:
    """The fault ``scaled-to-zero``: the first request starts the model; until it runs, all are refused."""

    def __init__(self, clock: Clock, faults: FaultBook) -> None:
        self._clock = clock
        self._faults = faults
        self._lock = threading.Lock()
        self._woken: dict[str, datetime] = {}

    def check(self, deployed: Any) -> None:
        with self._lock:
            fault = self._faults.take("scaled-to-zero", f"Predict/{deployed.display_name}")
            if fault is None:
                self._woken.pop(deployed.id, None)
                return
            woken = self._woken.setdefault(deployed.id, self._clock.now())
            if self._clock.now() - woken < timedelta(seconds=fault.parameters["seconds"]):
                raise failure_of("scaled_to_zero", "endpoint", deployed.id)


def _body(request: Any) -> bytes:
    """The JSON that Google's front end makes of the message; in a protobuf Value every number is a double."""
    message = type(request).pb(request)
    document = {"instances": [_plain(value) for value in message.instances]}
    if message.HasField("parameters"):
        document["parameters"] = _plain(message.parameters)
    return json.dumps(document).encode()


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return {name: _plain(field) for name, field in value.struct_value.fields.items()}
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    return None if kind in (None, "null_value") else getattr(value, kind)


def _read_predictions(answer: RawAnswer) -> dict[str, Any]:
    if answer.status != 200:
        raise ServiceFailure(code_of_http_status(answer.status), answer.body.decode("utf-8", "replace"))
    try:
        document = json.loads(answer.body)
    except ValueError:
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("predictions"), list):
        raise failure_of("predictions_list", "predictions", "")
    return document


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
