"""The Open Inference Protocol's infer: one tensor a field, one element a picture's prompt; base64 text back.

Every tensor is named as a field of the request contract and has one element for all prompts, or one for each.
The request's ``parameters`` are the contract's. Outputs are image (BYTES, base64), seed and receipt (BYTES,
JSON); raw picture bytes in BYTES would crash KServe's own client.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from handler.contract.job import Outcome
from handler.contract.kinds import MAX_EXACT
from handler.contract.problem import Refusal, brief
from handler.contract.request import parse_body
from handler.contract.response import to_json
from handler.doors.http.answer import Answer, DrawRequest, Parsed, json_answer, refuse
from handler.doors.http.desk import Call
from handler.doors.http.errors import kserve_error
from handler.doors.http.pictures import DrawnFiles, drawn_files
from handler.doors.http.renamed_fields import field_problem, read_object
from handler.doors.http.tensors import Tensor, pack_texts, read_tensors
from handler.doors.seeds import draw_seed

LENGTH = "Inference-Header-Content-Length"
OUTPUTS = ("image", "seed", "receipt")
TRITONS_OWN = ("binary_data_output",)
"""Parameters of the protocol that are not the contract's."""


def infer(model_name: str, call: Call) -> Parsed:
    """Reads an infer request."""
    split = _split(call)
    if isinstance(split, Refusal):
        return split
    head, binary = split
    document = read_object(head, call.settings.limits)
    if isinstance(document, Refusal):
        return document
    tensors = read_tensors(document.get("inputs"), binary)
    if isinstance(tensors, Refusal):
        return tensors
    parameters = document.get("parameters", {})
    if not isinstance(parameters, Mapping):
        return field_problem("parameters", parameters, "an object", "parameters must be an object")
    outputs = _outputs(document.get("outputs"), parameters)
    if isinstance(outputs, Refusal):
        return outputs
    name = str(brief(document.get("id", "")))
    return _draw(call, tensors, parameters, _Answering(model_name, name, outputs))


def _split(call: Call) -> tuple[bytes, bytes] | Refusal:
    length = call.headers.get(LENGTH)
    if length is None:
        return call.body, b""
    if not length.isascii() or not length.isdigit() or len(length) > 9 or int(length) > len(call.body):
        message = f"{LENGTH} is {length[:20]}; the body has {len(call.body)} bytes"
        return field_problem(LENGTH, length, "the length of the JSON", message)
    return call.body[: int(length)], call.body[int(length) :]


def _draw(
    call: Call, tensors: Mapping[str, Tensor], parameters: Mapping[str, Any], answering: _Answering
) -> Parsed:
    prompts = tensors.get("prompt")
    if prompts is None:
        return field_problem("prompt", None, "a BYTES tensor", "the input 'prompt' (BYTES) is missing")
    count = len(prompts.values)
    for tensor in tensors.values():
        if len(tensor.values) not in (1, count):
            message = f"{tensor.name} has {len(tensor.values)} elements; prompt has {count}"
            return field_problem(tensor.name, None, f"1 or {count} elements", message)
    instances = [
        {name: one.values[index if len(one.values) > 1 else 0] for name, one in tensors.items()}
        for index in range(count)
    ]
    own = {name: value for name, value in parameters.items() if name not in TRITONS_OWN}
    request = parse_body({"instances": instances, "parameters": own}, call.settings, draw_seed)
    if isinstance(request, Refusal):
        return request

    def make_answer(outcomes: Sequence[Outcome | None]) -> Answer:
        drawn = drawn_files(request.jobs, outcomes, call.drawer.description)
        if isinstance(drawn, Refusal):
            return refuse(drawn, kserve_error)
        return answering.answer(drawn)

    return DrawRequest(request.jobs, make_answer)


def _outputs(wanted: Any, parameters: Mapping[str, Any]) -> dict[str, bool] | Refusal:
    """The outputs by name, and whether each is to be binary."""
    binary = parameters.get("binary_data_output", False) is True
    if wanted is None or wanted == []:
        return {"image": binary, "seed": False}
    outputs: dict[str, bool] = {}
    for one in wanted if isinstance(wanted, list) else [wanted]:
        name = one.get("name") if isinstance(one, Mapping) else None
        if name not in OUTPUTS:
            message = f"there is no output {brief(name)}; there are {', '.join(OUTPUTS)}"
            return field_problem("outputs", None, ", ".join(OUTPUTS), message)
        asked = one.get("parameters")
        asked = asked if isinstance(asked, Mapping) else {}
        outputs[name] = asked.get("binary_data", binary) is True and name != "seed"
    return outputs


class _Answering:
    """Makes the answer to one infer request."""

    def __init__(self, model_name: str, request_id: str, outputs: Mapping[str, bool]) -> None:
        self._head = {"model_name": model_name, "model_version": "1", "id": request_id}
        self._outputs = outputs

    def answer(self, drawn: DrawnFiles) -> Answer:
        """The JSON, and the binary tensors after it where any was asked for."""
        outputs, binary = [], b""
        for name, is_binary in self._outputs.items():
            output = {"name": name, "shape": [len(drawn)], **_datatype(name, drawn)}
            values = _values(name, drawn)
            if is_binary:
                packed = pack_texts(values)
                output["parameters"] = {**output.get("parameters", {}), "binary_data_size": len(packed)}
                binary += packed
            else:
                output["data"] = values
            outputs.append(output)
        document = {**self._head, "outputs": outputs}
        if not binary:
            return json_answer(document)
        head = to_json(document).encode("ascii")
        return Answer(200, head + binary, "application/octet-stream", {LENGTH: str(len(head))})


def _datatype(name: str, drawn: DrawnFiles) -> dict[str, Any]:
    if name == "seed":
        large = any(one.job.seed >= MAX_EXACT * 1024 for one in drawn)
        return {"datatype": "UINT64" if large else "INT64"}
    kind = "application/json" if name == "receipt" else f"{drawn[0].media_type};base64"
    return {"datatype": "BYTES", "parameters": {"content_type": kind}}


def _values(name: str, drawn: DrawnFiles) -> list[Any]:
    if name == "seed":
        return [one.job.seed for one in drawn]
    if name == "receipt":
        return [json.dumps(one.receipt) for one in drawn]
    return [one.base64 for one in drawn]
