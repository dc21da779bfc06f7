"""`marquee cloud`: one detached process, found again, stopped whole; and programs led to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

UNMODIFIED = """
import sys
from google.cloud import storage

client = storage.Client()
bucket = client.create_bucket("from-outside")
bucket.blob("a/b").upload_from_string("content")
print([found.name for found in client.list_buckets()], client.project)
print([blob.name for blob in bucket.list_blobs()], bucket.blob("a/b").download_as_bytes())
"""

MAKE_BUCKET = """
import sys
from google.cloud import storage

storage.Client().create_bucket(sys.argv[1])
"""

VERTEX = """
from google.cloud import aiplatform, resourcemanager

aiplatform.init(project="marquee-local", location="europe-west4")
endpoint = aiplatform.Endpoint.create(display_name="an endpoint", sync=True)
project = resourcemanager.ProjectsClient().get_project(name="projects/marquee-local")
print([found.display_name for found in aiplatform.Endpoint.list()])
print(endpoint.resource_name.startswith(project.name + "/locations/europe-west4/endpoints/"))
"""

TWO_ANSWERS = """
from google.api_core.exceptions import GoogleAPICallError
from google.cloud import storage

client = storage.Client()
for _ in range(2):
    try:
        client.get_bucket("any", retry=None)
    except GoogleAPICallError as error:
        print(error.code)
"""

ELSEWHERE = """
import sys
import requests

try:
    requests.get(sys.argv[1], timeout=60).raise_for_status()
except requests.RequestException as error:
    print(error)
"""


pytestmark = pytest.mark.slow


class Cloud:
    """The command line, with a state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        end = words.index("--") if "--" in words else len(words)
        options = [*words[:end], "--state", str(self.folder), *words[end:]]
        command = [sys.executable, "-m", "pipeline", "cloud", *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)

    def status(self) -> dict[str, object]:
        return dict(json.loads(self("status", "--json").stdout))

    def run(self, program: str, *words: str) -> str:
        done = self("run", "--", sys.executable, "-c", program, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    cloud = Cloud(tmp_path / "cloud")
    yield cloud
    cloud("down")


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A cloud for the tests that do not stop it."""
    cloud = Cloud(tmp_path_factory.mktemp("standing"))
    assert cloud("up").returncode == 0
    yield cloud
    cloud("down")


def test_killed_restarted_emptied(cloud: Cloud) -> None:
    """What a cloud holds and its ports survive a kill, its replicas do not; reset empties it."""
    assert cloud.status() == {"running": False, "state": str(cloud.folder)}
    assert cloud("up").returncode == 0
    first = cloud.status()
    cloud.run(MAKE_BUCKET, "kept")
    assert all(path.stat().st_mode & 0o077 == 0 for path in cloud.folder.rglob("*"))
    assert cloud.folder.stat().st_mode & 0o077 == 0
    asleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    orphan = subprocess.Popen(asleep, cwd=cloud.folder / "vertex", start_new_session=True)
    end(int(str(first["pid"])), signal.SIGKILL)
    assert cloud.status()["running"] is False

    assert cloud("up").returncode == 0
    second = cloud.status()
    assert orphan.wait(60) == -signal.SIGKILL
    assert second["pid"] != first["pid"]
    addresses = ("storage", "vertex_rest", "vertex_grpc", "proxy", "dedicated")
    assert [second[name] for name in addresses] == [first[name] for name in addresses]
    with pytest.raises(AssertionError, match="409"):
        cloud.run(MAKE_BUCKET, "kept")

    authority = Path(str(second["ca_file"])).read_bytes()
    assert cloud("reset").returncode == 0
    assert not psutil.pid_exists(int(str(second["pid"])))
    assert "no local cloud runs" in cloud("down").stdout
    assert cloud.run(UNMODIFIED).startswith("['from-outside'] marquee-local")
    assert cloud.status()["running"] is False
    assert Path(str(second["ca_file"])).read_bytes() == authority


def end(pid: int, number: int) -> None:
    process = psutil.Process(pid)
    os.kill(pid, number)
    process.wait(60)


def test_several_ups_at_once_make_one_cloud(cloud: Cloud) -> None:
    command = [sys.executable, "-m", "pipeline", "cloud", "up", "--state", str(cloud.folder)]
    together = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=240)[0] for process in together]
    assert [process.returncode for process in together] == [0, 0]
    assert len(set(told)) == 1


def test_start_that_fails_says_why(cloud: Cloud) -> None:
    cloud.folder.mkdir()
    (cloud.folder / "storage").mkdir()
    (cloud.folder / "storage" / "index.sqlite3").write_text("this is no database, and long enough to be seen")
    done = cloud("up")
    assert done.returncode == 1
    assert "file is not a database" in done.stderr


def test_unmodified_program_uses_storage(standing: Cloud) -> None:
    assert standing.run(UNMODIFIED) == "['from-outside'] marquee-local\n['a/b'] b'content'\n"


def test_unmodified_program_uses_vertex_by_grpc(standing: Cloud) -> None:
    assert standing.run(VERTEX).splitlines()[-2:] == ["['an endpoint']", "True"]


@pytest.mark.parametrize(
    "url", ["https://example.com/", "http://example.com/", "https://bigquery.googleapis.com/"]
)
def test_every_other_host_is_refused(standing: Cloud, url: str) -> None:
    assert "403" in standing.run(ELSEWHERE, url)


def test_exit_code_is_passed_through(standing: Cloud) -> None:
    assert standing("run", "--", sys.executable, "-c", "raise SystemExit(7)").returncode == 7
    assert standing("run", "--", "sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM
    assert "cannot run no-such-program" in standing("run", "--", "no-such-program").stderr
    assert "no program is given" in standing("run").stderr


def test_faults_by_the_command_line(standing: Cloud) -> None:
    wrong = standing("fault", "set", "no-such-fault")
    standing("fault", "set", "storage-unavailable", "storage-permission-denied,target=other")
    listed = standing("fault", "list").stdout
    answers = standing.run(TWO_ANSWERS).split()
    standing("fault", "clear")

    assert (wrong.returncode, "no fault is called 'no-such-fault'" in wrong.stderr) == (1, True)
    assert "set: storage-unavailable for *" in listed
    assert answers == ["503", "404"]
    assert "set:" not in standing("fault", "list").stdout
