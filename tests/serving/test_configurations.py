"""The three configurations of TorchServe that marquee writes or ships agree on what protects its door."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from handler.contract.limits import Limits
from pipeline.rules.table import table
from pipeline.serving.launch_files import config_properties
from pipeline.serving.settings import Ports, ServeOptions

ROOT = Path(__file__).parents[2]


def _of_the_image(folder: Path) -> str:
    start = runpy.run_path(str(ROOT / "pipeline" / "containers" / "image_files" / "start.py"))
    return str(start["config_properties"]("8080", folder, folder))


CONFIGURATIONS = {
    "plain": lambda _: (ROOT / "model_artifacts" / "config.properties").read_text(),
    "serve": lambda folder: config_properties(ServeOptions(), Ports(1, 2, 3, 4, 5), folder, folder),
    "image": _of_the_image,
}


@pytest.fixture(params=CONFIGURATIONS)
def properties(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    lines = CONFIGURATIONS[request.param](tmp_path).splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_sizes(properties: dict[str, str]) -> None:
    sizes = (properties["max_request_size"], properties["max_response_size"])
    assert sizes == ("16777216", "67108864")


def test_a_second_request_on_a_connection_is_refused(properties: dict[str, str]) -> None:
    assert "-ea:org.pytorch.serve.util.NettyUtils" in properties["vmargs"].split()


def test_the_handlers_limits_are_met_before_torchserves() -> None:
    """Its refusal says what would fit; TorchServe's for a request is empty, and a reply kills the worker."""
    assert Limits().max_request_bytes < ServeOptions().max_request_bytes
    assert Limits().max_response_bytes == table().torchserve_response_bytes
