"""The HTTP door's routes with the real clients over real sockets; pictures are single colours."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import boto3
import httpx
import numpy as np
import openai
import pytest
import tritonclient.http as triton
from botocore import UNSIGNED
from botocore.config import Config
from flat_colours import Running, colour, serving
from PIL import Image

PROMPT = "a red circle"


@pytest.fixture(scope="module")
def door() -> Iterator[Running]:
    with serving({"AIP_PREDICT_ROUTE": "/my/predict", "AIP_HEALTH_ROUTE": "/my/health"}) as running:
        yield running


@pytest.fixture(autouse=True)
def _idle(request: pytest.FixtureRequest) -> None:
    if "door" in request.fixturenames:
        drawer = request.getfixturevalue("door").drawer
        drawer.step_seconds, drawer.full, drawer.steps = 0.0, False, 0
        drawer.seeds.clear()


def opened(file: bytes | str) -> Image.Image:
    data = base64.b64decode(file, validate=True) if isinstance(file, str) else file
    return Image.open(io.BytesIO(data))


def post(door: Running, path: str, body: Any, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(door.url + path, json=body, headers=named, timeout=60)


@pytest.mark.parametrize(
    "path", ["/my/predict", "/predictions/model", "/invocations", "/v1/models/model:predict"]
)
def test_instances_are_drawn_at_every_route_that_takes_them(door: Running, path: str) -> None:
    answer = post(door, path, {"instances": [{"prompt": PROMPT, "seed": 5, "output_format": "png"}, PROMPT]})
    assert answer.status_code == 200, answer.text
    first, _ = answer.json()["predictions"]
    assert opened(first).getpixel((0, 0)) == colour(5)


@pytest.mark.parametrize("path", ["/my/health", "/ping", "/v2/health/ready", "/v2/models/model/ready"])
def test_health_is_200_only_while_requests_are_taken(door: Running, path: str) -> None:
    assert httpx.get(door.url + path).status_code == 200
    door.desk.draining = True
    try:
        assert httpx.get(door.url + path).status_code == 503
        refused = post(door, "/my/predict", {"instances": [PROMPT]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert httpx.get(door.url + "/v2/health/live").json() == {"live": True}
    finally:
        door.desk.draining = False


def test_a_client_that_hangs_up_is_not_drawn_for(door: Running) -> None:
    door.drawer.step_seconds = 0.2
    body = json.dumps({"instances": [PROMPT]}).encode()
    head = f"POST /my/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", door.port)) as client:
        client.sendall(head.encode() + body)
        while door.drawer.steps < 1:
            time.sleep(0.01)
    while door.desk.open_requests:
        time.sleep(0.01)
    drawn = door.drawer.steps
    time.sleep(1.0)
    assert door.drawer.steps <= drawn + 1 < 9, "one step may have been running"


def test_a_large_body_is_refused_before_it_is_read(door: Running) -> None:
    with socket.create_connection(("127.0.0.1", door.port), 30) as client:
        client.sendall(b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000000\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")

    def parts() -> Iterator[bytes]:
        for _ in range(50):
            yield b" " * 10_000

    answer = httpx.post(door.url + "/v1/images/generations", content=parts())
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


def test_errors_are_json_and_name_what_there_is(door: Running) -> None:
    missing = httpx.get(door.url + "/nowhere")
    assert missing.status_code == 404
    assert "POST /my/predict" in missing.json()["error"]["message"]
    wrong = httpx.get(door.url + "/my/predict")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    form = httpx.post(door.url + "/my/predict", data={"prompt": "x"})
    assert (form.status_code, form.json()["error"]["code"]) == (415, "unsupported_media_type")
    zipped = post(door, "/my/predict", {}, content_encoding="gzip")
    assert zipped.status_code == 415
    assert post(door, "/v2/models/model/infer", {"inputs": 3}).json()["error"].startswith("inputs must be")
    assert "POST /v2/models/model/infer" in httpx.get(door.url + "/v2/models/other").json()["error"]


def test_the_request_id_is_taken_where_it_is_harmless_and_made_elsewhere(door: Running) -> None:
    assert httpx.get(door.url + "/ping", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = httpx.get(door.url + "/ping", headers={"x-request-id": "a b" * 200}).headers["x-request-id"]
    assert len(made) == 32


def test_another_host_is_refused_on_loopback(door: Running) -> None:
    assert httpx.get(door.url + "/ping", headers={"Host": "evil.example"}).status_code == 421
    assert httpx.get(door.url + "/ping", headers={"Host": "localhost:1"}).status_code == 200


def test_sagemakers_sample_is_drawn_by_boto3(door: Running) -> None:
    """The runtime's path is rewritten to the container's, as SageMaker itself does it."""
    client = boto3.client(
        "sagemaker-runtime",
        endpoint_url=door.url,
        region_name="us-east-1",
        config=Config(signature_version=UNSIGNED),
    )

    def to_container(request: Any, **_: Any) -> None:
        request.url = request.url.replace("/endpoints/e/invocations", "/invocations")

    client.meta.events.register("before-send.sagemaker-runtime.InvokeEndpoint", to_container)
    sample = {
        "prompt": PROMPT,
        "guidance_scale": 7.5,
        "num_inference_steps": 50,
        "height": 64,
        "width": 32,
        "results": 2,
    }
    body = json.dumps(sample)
    answer = client.invoke_endpoint(EndpointName="e", ContentType="application/json", Body=body)
    images = json.load(answer["Body"])["images"]
    assert [opened(image).size for image in images] == [(32, 64), (32, 64)]
    one = json.dumps({"prompt": PROMPT, "seed": 3})
    raw = client.invoke_endpoint(
        EndpointName="e", ContentType="application/json", Accept="image/png", Body=one
    )
    assert raw["ContentType"] == "image/png"
    assert opened(raw["Body"].read()).getpixel((0, 0)) == colour(3)


def test_sagemakers_mistakes_have_its_own_names_and_never_200(door: Running) -> None:
    answer = post(door, "/invocations", {"prompt": PROMPT, "results": 99})
    assert answer.status_code == 400
    assert answer.json()["error"]["problems"][0]["field"] == "results"
    two = post(door, "/invocations", {"prompt": PROMPT, "results": 2}, accept="image/png")
    assert two.status_code == 406
    both = post(door, "/invocations", {"prompt": PROMPT, "results": 2, "num_images_per_prompt": 2})
    assert both.status_code == 400


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_infers(door: Running, binary: bool) -> None:
    client = triton.InferenceServerClient(door.url.removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("model")
    assert not client.is_model_ready("nope")
    names = [one["name"] for one in client.get_model_metadata("model")["inputs"]]
    assert {"prompt", "seed", "guidance_scale"} <= set(names)
    prompts = triton.InferInput("prompt", [2], "BYTES")
    prompts.set_data_from_numpy(np.array([b"a", "ein Kreis é".encode()], dtype=object), binary_data=binary)
    seeds = triton.InferInput("seed", [2], "INT64")
    seeds.set_data_from_numpy(np.array([1, 2], dtype=np.int64), binary_data=binary)
    outputs = [triton.InferRequestedOutput("image", binary_data=binary)]
    result = client.infer(
        "model", [prompts, seeds], outputs=outputs, request_id="r1", parameters={"output_format": "png"}
    )
    assert result.get_response()["id"] == "r1"
    drawn = [opened(base64.b64decode(one)).getpixel((0, 0)) for one in result.as_numpy("image")]
    assert drawn == [colour(1), colour(2)]
    assert len(client.infer("model", [prompts]).as_numpy("seed")) == 2
    with pytest.raises(triton.InferenceServerException, match=r"'prompt' .BYTES. is missing"):
        client.infer("model", [seeds])


def test_openais_client_draws_and_lists(door: Running) -> None:
    client = openai.OpenAI(base_url=door.url + "/v1", api_key="k")
    assert [model.id for model in client.models.list()] == ["model"]
    assert client.models.retrieve("model").owned_by == "marquee"
    answer = client.images.generate(
        prompt=PROMPT, model="model", n=2, size="32x64", quality="low", user="me", extra_body={"seed": 5}
    )
    assert answer.data is not None
    pictures = [opened(one.b64_json or "") for one in answer.data]
    assert [picture.getpixel((0, 0)) for picture in pictures] == [colour(5), colour(6)]
    assert (pictures[0].size, answer.output_format, answer.size) == ((32, 64), "png", "32x64")

    async def draw() -> openai.types.ImagesResponse:
        async with openai.AsyncOpenAI(base_url=door.url + "/v1", api_key="k") as other:
            return await other.images.generate(prompt=PROMPT, output_format="jpeg", output_compression=50)

    assert asyncio.run(draw()).output_format == "jpeg"


@pytest.mark.parametrize(
    ("wrong", "param", "kind"),
    [
        ({"model": "nope"}, "model", openai.NotFoundError),
        ({"prompt": ""}, "prompt", openai.BadRequestError),
        ({"size": "huge"}, "size", openai.BadRequestError),
        ({"n": 11}, "n", openai.BadRequestError),
        ({"background": "transparent"}, "background", openai.BadRequestError),
        ({"response_format": "url"}, "response_format", openai.BadRequestError),
        ({"extra_body": {"sede": 3}}, "sede", openai.BadRequestError),
        ({"extra_body": {"num_inference_steps": 1000}}, "num_inference_steps", openai.BadRequestError),
    ],
)
def test_openais_errors_name_the_parameter(
    door: Running, wrong: dict[str, Any], param: str, kind: type[openai.APIStatusError]
) -> None:
    client = openai.OpenAI(base_url=door.url + "/v1", api_key="k")
    with pytest.raises(kind) as caught:
        client.images.generate(**{"prompt": PROMPT, **wrong})
    assert caught.value.param == param
    assert caught.value.request_id


def test_the_tries_of_one_request_have_one_seed(door: Running) -> None:
    door.drawer.full = True
    client = openai.OpenAI(base_url=door.url + "/v1", api_key="k", max_retries=2)
    with pytest.raises(openai.RateLimitError):
        client.images.generate(prompt=PROMPT)
    assert len(door.drawer.seeds) == 3
    assert len(set(door.drawer.seeds)) == 1
    with pytest.raises(openai.RateLimitError):
        client.with_options(max_retries=0).images.generate(prompt=PROMPT)
    assert door.drawer.seeds[-1] != door.drawer.seeds[0], "another request has another seed"


def test_metrics_count_requests_by_door_and_status(door: Running) -> None:
    post(door, "/my/predict", {"instances": [PROMPT]})
    text = httpx.get(door.url + "/metrics").text
    assert 'marquee_http_requests_total{door="vertex",status="200"}' in text
    assert "# TYPE marquee_steps counter" in text


def test_the_documentation_asks_no_other_machine(door: Running) -> None:
    page = httpx.get(door.url + "/docs").text
    assert "http://" not in page
    assert "https://" not in page
    document = httpx.get(door.url + "/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for path, operations in document["paths"].items():
        for example in (
            (operations.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {}))
            .get("examples", {})
            .values()
        ):
            answer = post(door, path, example["value"])
            assert answer.status_code == 200, (path, answer.text)


def test_keys_and_a_rate_are_asked_for_where_they_are_set(tmp_path: Any) -> None:
    (tmp_path / "keys").write_text("# mine\n0123456789abcdef\n")
    environment = {"MARQUEE_API_KEYS_FILE": str(tmp_path / "keys"), "MARQUEE_RATE_LIMIT": "2/h"}
    with serving(environment) as door:
        body = {"instances": [PROMPT]}
        assert httpx.get(door.url + "/ping").status_code == 200
        assert post(door, "/predictions/model", body).status_code == 401
        assert post(door, "/predictions/model", body, x_api_key="0123456789abcdeX").status_code == 401
        assert post(door, "/predictions/model", body, x_api_key="0123456789abcdef").status_code == 200
        bearer = "Bearer 0123456789abcdef"
        assert post(door, "/predictions/model", body, authorization=bearer).status_code == 200
        limited = post(door, "/predictions/model", body, authorization=bearer)
        assert limited.status_code == 429
        assert int(limited.headers["retry-after"]) > 0


def test_pages_of_the_named_origins_alone_may_ask() -> None:
    asking = {"origin": "https://pages.example", "access-control-request-method": "POST"}
    with serving({"MARQUEE_CORS_ORIGINS": "https://pages.example"}) as door:
        preflight = httpx.options(door.url + "/predictions/model", headers=asking)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://pages.example"
        other = {**asking, "origin": "https://other.example"}
        refused = httpx.options(door.url + "/predictions/model", headers=other)
        assert "access-control-allow-origin" not in refused.headers
        answer = httpx.get(door.url + "/ping", headers={"origin": "https://pages.example"})
        assert answer.headers["access-control-allow-origin"] == "https://pages.example"
    with serving({}) as door:
        answer = httpx.get(door.url + "/ping", headers={"origin": "https://pages.example"})
        assert "access-control-allow-origin" not in answer.headers
