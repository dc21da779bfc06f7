"""The HTTP door as `marquee serve --door http` runs it: the archive's own code in its own process."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import httpx
import openai
import pytest

from pipeline.serving.http_door import start_http
from pipeline.serving.settings import ServeOptions


@pytest.mark.slow
def test_one_archive_draws_the_same_picture_through_its_routes_and_finishes_what_is_open(
    model_mar: Path,
) -> None:
    server = start_http(model_mar, ServeOptions(threads=1))
    try:
        instance = {"prompt": "a red circle", "seed": 1, "output_format": "png", "response": "full"}
        answer = httpx.post(server.predict_url, json={"instances": [instance]}, timeout=300).json()
        client = openai.OpenAI(base_url=server.url + "/v1", api_key="k", timeout=300)
        drawn = client.images.generate(prompt="a red circle", extra_body={"seed": 1}).data
        assert drawn is not None
        assert drawn[0].b64_json == answer["predictions"][0]["image"]
        long = {"instances": [{"prompt": "a", "num_inference_steps": 100}]}
        statuses: list[int] = []
        asking = threading.Thread(
            target=lambda: statuses.append(httpx.post(server.predict_url, json=long, timeout=300).status_code)
        )
        asking.start()
        while "marquee_http_requests_open 1" not in httpx.get(server.url + "/metrics", timeout=60).text:
            time.sleep(0.02)
    finally:
        drained = server.stop(300)
    asking.join()
    assert drained
    assert statuses == [200]
    assert server.process.returncode == 0
    assert not server.folder.path.exists()
