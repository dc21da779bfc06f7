"""The tutorial's four steps with Google's SDK alone, in a program of its own, against real TorchServe."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from google.api_core import exceptions
from local_vertex import LocalVertex, tokens
from PIL import Image

from pipeline.cloud.certificates import Certificate
from pipeline.cloud.clock import Clock
from pipeline.cloud.vertex.torchserve_container import start_torchserve

pytestmark = pytest.mark.torchserve
SECONDS = 300

FOUR_STEPS = """
import base64, os, sys
from google.oauth2.credentials import Credentials
from google.cloud import aiplatform

aiplatform.init(project="marquee-local", location="us-central1", api_endpoint=sys.argv[1],
                credentials=Credentials(os.environ["TOKEN"]))
model = aiplatform.Model.upload(
    display_name="stable-diffusion", description="Stable Diffusion 1.5",
    serving_container_image_uri="us-docker.pkg.dev/vertex-ai/prediction/pytorch-gpu.2-4:latest",
    artifact_uri="gs://models/shapes")
endpoint = aiplatform.Endpoint.create(display_name="pictures")
model.deploy(endpoint=endpoint, machine_type="n1-standard-8", accelerator_type="NVIDIA_TESLA_P100",
             accelerator_count=1, traffic_percentage=100, deploy_request_timeout=1200, sync=True)
response = endpoint.predict(instances=[{"prompt": "a red circle on a blue background", "seed": 7}])
with open(sys.argv[2], "wb") as picture:
    picture.write(base64.b64decode(response.predictions[0]))
print("endpoint:", endpoint.resource_name)
"""

TEARDOWN = """
import os, sys
from google.oauth2.credentials import Credentials
from google.cloud import aiplatform

aiplatform.init(project="marquee-local", location="us-central1", api_endpoint=sys.argv[1],
                credentials=Credentials(os.environ["TOKEN"]))
for endpoint in aiplatform.Endpoint.list():
    endpoint.undeploy_all()
    endpoint.delete()
for model in aiplatform.Model.list(filter='display_name="stable-diffusion"'):
    model.delete()
"""


@pytest.fixture
def cloud(tmp_path: Path, certificate: Certificate, prebuilt_mar: Path) -> Iterator[LocalVertex]:
    """A cloud whose containers are real; gs://models/shapes holds the archive for the prebuilt one."""
    cloud = LocalVertex(tmp_path, certificate, Clock(), start_container=start_torchserve)
    cloud.put("shapes/model.mar", prebuilt_mar.read_bytes())
    cloud.start()
    yield cloud
    cloud.stop()
    cloud.store.close()


def run_program(text: str, cloud: LocalVertex, *arguments: str) -> str:
    assert cloud.servers
    given = {
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(cloud.certificate.ca_file),
        "TOKEN": tokens().issue(),
    }
    done = subprocess.run(
        [sys.executable, "-c", text, cloud.servers.grpc_address, *arguments],
        env=os.environ | given,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def replica_processes(cloud: LocalVertex) -> list[psutil.Process]:
    """The Java processes that serve from this cloud's folder; other tests' servers are left out."""
    return [
        process for process in psutil.Process().children(recursive=True) if _serves(process, cloud.folder)
    ]


def _serves(process: psutil.Process, folder: Path) -> bool:
    try:
        return "java" in process.name() and Path(process.cwd()).is_relative_to(folder.resolve())
    except psutil.NoSuchProcess:
        return False


def predict(cloud: LocalVertex, endpoint: str, *instances: Any) -> list[Any]:
    clients = cloud.clients("grpc")
    answer = clients.predict(endpoint, *instances, timeout=SECONDS)
    clients.close[0].close()
    return list(answer.predictions)


def test_the_four_steps_then_a_restart_then_everything_gone(cloud: LocalVertex, tmp_path: Path) -> None:
    picture = tmp_path / "img.jpg"
    printed = run_program(FOUR_STEPS, cloud, str(picture))
    endpoint = printed.partition("endpoint: ")[2].strip()
    with Image.open(picture) as image:
        assert image.format == "JPEG"
    assert len(replica_processes(cloud)) == 1

    [described] = predict(cloud, endpoint, {"describe": True})
    assert described["packages"]["source"] == "environment"
    assert described["packages"]["built_for"] == "cp39 linux_x86_64"

    wrong = {"prompt": 3, "stepz": 1}
    with pytest.raises(exceptions.BadRequest, match="invalid_request") as refusal:
        predict(cloud, endpoint, wrong)
    problems = json.loads(refusal.value.message)["error"]["problems"]
    assert sorted(problem["field"] for problem in problems) == ["prompt", "stepz"]

    cloud.stop()
    assert replica_processes(cloud) == []
    cloud.start()
    [again] = predict(cloud, endpoint, {"prompt": "a red circle on a blue background", "seed": "7"})
    assert base64.b64decode(again) == picture.read_bytes()

    run_program(TEARDOWN, cloud)
    assert replica_processes(cloud) == []
    assert not any((cloud.folder / "vertex" / "deployed").iterdir())


def test_a_handler_that_cannot_be_imported_fails_the_deployment_with_its_own_words(
    cloud: LocalVertex,
) -> None:
    cloud.put("broken/model.mar", archive_of("import a_package_that_is_not_there"))
    clients = cloud.clients("grpc")
    endpoint = clients.create_endpoint().name
    model = clients.upload("broken")
    with pytest.raises(exceptions.FailedPrecondition, match="Model server never became ready") as failure:
        clients.begin_deploy(endpoint, model.model).result(timeout=SECONDS)
    assert "ModuleNotFoundError" in failure.value.message
    log = failure.value.message.partition("logs can be found at ")[2].partition(" Last lines")[0].rstrip(".")
    assert "ModuleNotFoundError" in Path(log).read_text()
    assert list(clients.endpoints.get_endpoint(name=endpoint).deployed_models) == []
    assert replica_processes(cloud) == []
    clients.close[0].close()


def test_what_googles_container_lacks_is_lacking_here_too(cloud: LocalVertex, model_mar: Path) -> None:
    """The packages are installed on this machine, and TorchServe here takes continuousBatching."""
    cloud.put("plain/model.mar", model_mar.read_bytes())
    cloud.put("hangs/model.mar", archive_of("", settings="continuousBatching: true\n"))
    clients = cloud.clients("grpc")
    endpoint = clients.create_endpoint().name
    for folder, words in (("plain", "No module named 'diffusers'"), ("hangs", "continuousBatching")):
        model = clients.upload(folder).model
        with pytest.raises(exceptions.FailedPrecondition, match="Model server never became ready") as failure:
            clients.begin_deploy(endpoint, model).result(timeout=SECONDS)
        assert words in failure.value.message
    assert list(clients.endpoints.get_endpoint(name=endpoint).deployed_models) == []
    clients.close[0].close()


HANDLER_IN_THE_TWIN = """
import os, sys

class Theirs:
    def initialize(self, context):
        self.initialized = True

    def handle(self, data, context):
        return [[sys.prefix, os.environ["PYTHONPATH"].split(":")]] * len(data)
"""


def test_where_the_twin_exists_replicas_run_in_it(
    cloud: LocalVertex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment with this one's packages stands for the twin, which takes gigabytes to make."""
    twin = tmp_path / "rehearsal"
    venv.create(twin / "py39", with_pip=False, symlinks=True)
    (site,) = (twin / "py39" / "lib").glob("python3.*/site-packages")
    (site / "here.pth").write_text(sysconfig.get_path("purelib"))
    (twin / "torchserve-0.12.0").mkdir()
    (twin / "twin.json").write_text('{"description": "Python 3.9"}')
    monkeypatch.setenv("MARQUEE_REHEARSAL", str(twin))
    cloud.put("theirs/model.mar", archive_of(HANDLER_IN_THE_TWIN))
    clients = cloud.clients("grpc")
    endpoint = clients.create_endpoint().name
    clients.begin_deploy(endpoint, clients.upload("theirs").model).result(timeout=SECONDS)
    [[prefix, path]] = predict(cloud, endpoint, {"prompt": "x"})
    assert prefix == str(twin / "py39")
    assert str(twin / "torchserve-0.12.0") in path
    clients.close[0].close()
    cloud.stop()
    assert replica_processes(cloud) == []


def archive_of(handler: str, settings: str = "") -> bytes:
    """The smallest archive that TorchServe serves: a manifest, one handler and one worker."""
    manifest = {
        "createdOn": "01/01/1980 00:00:00",
        "runtime": "python",
        "model": {
            "modelName": "model",
            "handler": "its_handler.py",
            "modelVersion": "1.0",
            "configFile": "model-config.yaml",
        },
        "archiverVersion": "0.12.0",
    }
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        file.writestr("its_handler.py", handler)
        file.writestr("model-config.yaml", f"minWorkers: 1\nmaxWorkers: 1\n{settings}")
    return archive.getvalue()
