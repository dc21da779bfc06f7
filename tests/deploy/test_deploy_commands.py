"""The deploy commands in an environment whose variables point to another cloud."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from rehearsal_cloud import Configure, RehearsalCloud

from pipeline.client import VertexEndpoint
from pipeline.containers.fit import read_contents
from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.connection import Connection
from pipeline.deploy.flow import deploy
from pipeline.progress import Silent

ROOT = Path(__file__).parents[2]
ELSEWHERE = {
    "STORAGE_EMULATOR_HOST": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "REQUESTS_CA_BUNDLE": "/nowhere.pem",
    "NO_GCE_CHECK": "true",
}


def marquee(cloud: RehearsalCloud, *words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **ELSEWHERE, "MARQUEE_CLOUD": str(cloud.folder.path)}
    command = [sys.executable, "-m", "pipeline", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=cwd, timeout=200)


@pytest.mark.slow
def test_from_plan_to_teardown(cloud: RehearsalCloud, archive: ArchiveFile, tmp_path: Path) -> None:
    chosen = ("--set", f"archive={archive.path}")

    def run(*words: str) -> str:
        ran = marquee(cloud, *words)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    planned = run("plan", "--profile", "p100", *chosen)
    assert planned.splitlines()[0] == "target: the local cloud on this machine; nothing is charged"
    assert "price: $2.12 to $2.12 an hour" in planned
    assert "traffic   " in run("deploy", "--profile", "p100", *chosen)
    assert "nothing to do" in run("plan", "--profile", "p100", *chosen)
    picture = tmp_path / "picture.png"
    run("predict", "a red circle", "--endpoint", "marquee", "--seed", "3", "-o", str(picture))
    with Image.open(picture) as opened:
        assert opened.size == (64, 64)
    unknown = marquee(cloud, "predict", "a red circle", "--endpoint", "marque")
    assert (unknown.returncode, "there is no endpoint marque in" in unknown.stderr) == (1, True)
    assert "; it has marquee\n" in unknown.stderr
    found = json.loads(run("status", "--json"))
    assert [model["traffic"] for model in found["deployed"]] == [100]
    assert found["dollars_per_hour"] == pytest.approx(2.116)
    assert archive.weights_digest in run("verify", "marquee", *chosen)
    assert "nothing of marquee's is left" in run("teardown")
    assert "not registered" in run("status")


def test_plan_builds_the_containers_archive_and_names_the_one_it_leaves_out(
    cloud: RehearsalCloud, archive: ArchiveFile, tmp_path: Path
) -> None:
    clone = tmp_path / "clone" / "model_artifacts"
    shutil.copytree(ROOT / "model_artifacts" / "shapes", clone / "shapes")
    shutil.copy(ROOT / "model_artifacts" / "model-config.yaml", clone)
    theirs = Path(shutil.copy(archive.path, clone / "model.mar"))
    ran = marquee(cloud, "plan", "--profile", "p100", "--json", cwd=clone.parent)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["rehearsal"].startswith("rehearsed with this machine's packages")
    (built,) = (clone.parent / "build" / "archives" / "vertex-pytorch-gpu-2-4").glob("model-*.mar")
    assert read_contents(built).container == "vertex-pytorch-gpu-2-4"
    assert "holds another model and is not used" in " ".join(ran.stderr.split())
    assert theirs.read_bytes() == archive.path.read_bytes()


def test_a_google_run_is_announced_and_not_redirected(cloud: RehearsalCloud, archive: ArchiveFile) -> None:
    words = ("--cloud", "google", "--set", "project=my-project", "--set", f"archive={archive.path}")
    ran = marquee(cloud, "deploy", *words)
    assert ran.returncode == 1
    assert ran.stdout.startswith("target: GOOGLE CLOUD, project my-project")
    assert "STORAGE_EMULATOR_HOST" in ran.stderr
    assert cloud.book.calls == []


def test_the_client_takes_the_sdks_endpoint(
    cloud: RehearsalCloud, connection: Connection, configure: Configure, archive: ArchiveFile
) -> None:
    from google.cloud import aiplatform

    from pipeline.cloud.credentials import local_credentials

    deploy(connection, configure(), archive, Silent())
    aiplatform.init(
        project="marquee-local",
        location="us-central1",
        api_endpoint=cloud.running.vertex_rest,
        api_transport="rest",
        credentials=local_credentials(Path(cloud.running.credentials_file)),
    )
    client = VertexEndpoint.of(aiplatform.Endpoint("marquee"), connection.web)
    (picture,) = client.predict(["a red circle"])
    assert picture.seed == cloud.painters[0].instances[-1]["seed"]
    assert (picture.width, picture.height) == (64, 64)
