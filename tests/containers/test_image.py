"""The files of `marquee image`, and the two small programs that run inside the image."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.containers.image import TORCH_INDEXES, requirements, write_context
from pipeline.errors import MarqueeError

ROOT = Path(__file__).resolve().parents[2]
LOG_CONFIG = ROOT / "model_artifacts" / "log4j2.xml"
FILES = ROOT / "pipeline" / "containers" / "image_files"


@pytest.fixture(params=sorted(TORCH_INDEXES))
def context(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_context(tmp_path / "image", request.param, LOG_CONFIG).folder


def test_hadolint_finds_nothing(context: Path) -> None:
    beside_python = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    hadolint = shutil.which("hadolint", path=beside_python)
    if hadolint is None:
        pytest.skip("hadolint is not installed; make env installs it")
    done = subprocess.run([hadolint, context / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_context_is_complete_and_the_image_runs_as_nobody_special(context: Path) -> None:
    dockerfile = (context / "Dockerfile").read_text()
    copied = [
        name
        for line in dockerfile.splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for name in line.split()[1:-1]
    ]
    assert copied
    assert all((context / name).is_file() for name in copied)
    last_stage = dockerfile.rpartition("\nFROM ")[2]
    assert "USER 1000" in last_stage
    assert "HEALTHCHECK" in last_stage
    assert "uninstall --yes --quiet setuptools wheel pip" in last_stage
    assert "apt-get" not in dockerfile
    assert "{" not in dockerfile.replace("${", "")


def test_every_requirement_is_pinned_and_p100_gets_a_torch_that_still_knows_it(context: Path) -> None:
    lines = (context / "requirements.txt").read_text().splitlines()
    assert all(len(line.split("==")) == 2 for line in lines)
    assert "torchserve==0.12.0" in lines
    torch = next(line for line in requirements("p100") if line.startswith("torch=="))
    assert torch.endswith("+cu126")


def test_an_unknown_gpu_is_named(tmp_path: Path) -> None:
    with pytest.raises(MarqueeError, match="'k80'; known are p100, t4, l4, cpu"):
        write_context(tmp_path, "k80", LOG_CONFIG)
    assert not list(tmp_path.iterdir())


def test_cloudbuild_names_what_it_builds(context: Path) -> None:
    document = yaml.safe_load((context / "cloudbuild.yaml").read_text())
    assert document["images"][0] in document["steps"][0]["args"]


@pytest.fixture(scope="module")
def start() -> dict[str, Any]:
    return runpy.run_path(str(FILES / "start.py"))


def test_start_serves_a_mounted_archive_on_the_port_vertex_asks_for(
    start: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted/model.mar").write_bytes(b"archive")
    environment = {"AIP_STORAGE_URI": str(tmp_path / "mounted"), "AIP_HTTP_PORT": "9123"}
    for _ in range(2):  # a container that is started again finds its own files
        command = start["main"](environment, tmp_path / "home")
    assert (tmp_path / "home/model-store/model.mar").read_bytes() == b"archive"
    config = Path(command[-1]).read_text()
    assert "inference_address=http://0.0.0.0:9123\n" in config
    assert f"management_address=unix:{tmp_path / 'home/control/management.sock'}\n" in config
    assert (tmp_path / "home/control").stat().st_mode & 0o777 == 0o700
    assert "allowed_urls=none\nworkflow_store=/dev/null\n" in config
    assert "disable_token_authorization=true\n" in config
    assert command[1:3] == ["-m", "ts.model_server"]


@pytest.mark.parametrize("port", ["8080", "8082", "7070", "7071", "8083"])
def test_every_port_of_the_image_differs(start: dict[str, Any], port: str) -> None:
    others = start["other_ports"](port)
    assert len({*others, int(port)}) == 4


@pytest.mark.parametrize("port", ["", "0", "65536", "-1", "http", "8080 ", "²"])
def test_a_port_that_is_none_ends_the_start(start: dict[str, Any], port: str) -> None:
    with pytest.raises(SystemExit, match=r"AIP_HTTP_PORT is .* must be a port from 1 to 65535"):
        start["other_ports"](port)


def test_start_without_an_archive_says_where_it_belongs(start: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"model\.mar does not exist: mount a folder"):
        start["main"]({"AIP_STORAGE_URI": str(tmp_path)}, tmp_path / "home")


@contextmanager
def http_server(answers: dict[str, bytes], promised: int | None = None) -> Iterator[str]:
    """A server that answers these paths; ``promised`` is the length it claims instead of the real one."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answers.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Length", str(promised or len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_start_downloads_from_cloud_storage(start: dict[str, Any], tmp_path: Path) -> None:
    path = "/storage/v1/b/bucket/o/some%2Ffolder%2Fmodel.mar?alt=media"
    with http_server({path: b"archive"}) as url:
        environment = {"AIP_STORAGE_URI": "gs://bucket/some/folder", "STORAGE_EMULATOR_HOST": url}
        start["main"](environment, tmp_path)
        assert (tmp_path / "model-store/model.mar").read_bytes() == b"archive"
        with pytest.raises(SystemExit, match=r"gs://bucket/other/model\.mar cannot be read: 404"):
            start["main"](environment | {"AIP_STORAGE_URI": "gs://bucket/other/"}, tmp_path)


def test_start_refuses_a_download_that_broke_off(start: dict[str, Any], tmp_path: Path) -> None:
    path = "/storage/v1/b/bucket/o/model.mar?alt=media"
    with http_server({path: b"arch"}, promised=7) as url:
        environment = {"AIP_STORAGE_URI": "gs://bucket", "STORAGE_EMULATOR_HOST": url}
        with pytest.raises(SystemExit, match="broke off after 4 of 7 bytes"):
            start["main"](environment, tmp_path)
    assert not (tmp_path / "model-store/model.mar").exists()


def test_health_asks_the_model_and_not_ping() -> None:
    is_healthy = runpy.run_path(str(FILES / "health.py"))["is_healthy"]
    with http_server({"/predictions/model": b"{}"}) as url:
        assert is_healthy(url.rpartition(":")[2])
    with http_server({"/ping": b"{}"}) as url:
        assert not is_healthy(url.rpartition(":")[2])
    assert not is_healthy("9")
