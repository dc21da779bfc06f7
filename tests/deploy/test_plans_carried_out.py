"""The plan as it is printed is what the local cloud's log of calls shows afterwards, from many states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from foreign_models import deploy_foreign, make_foreign_endpoint
from rehearsal_cloud import RehearsalCloud

from pipeline.cli import app
from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.connection import Connection
from pipeline.deploy.flow import deploy
from pipeline.deploy.roles import without_roles
from pipeline.deploy.status import status
from pipeline.errors import MarqueeError
from pipeline.progress import Silent

QUIET = Silent()
CALLS = {
    "register model": "UploadModel",
    "create endpoint": "CreateEndpoint",
    "deploy deployed": "DeployModel",
    "resize deployed": "MutateDeployedModel",
    "smoke deployed": "RawPredict",
    "traffic on": "UpdateEndpoint",
    "default model": "MergeVersionAliases",
    "undeploy deployed": "UndeployModel",
    "delete endpoint": "DeleteEndpoint",
    "delete model": "DeleteModel",
    "delete version": "DeleteModelVersion",
}


@dataclass
class Stage:
    """What a state is set up with."""

    cloud: RehearsalCloud
    connection: Connection
    configure: Callable[..., Any]
    archive: ArchiveFile
    other: ArchiveFile
    third: ArchiveFile

    def deploy(self, archive: ArchiveFile, traffic: int = 100) -> None:
        deploy(self.connection, self.configure(traffic=traffic), archive, QUIET)

    def foreign(self, share: int, ours: int) -> None:
        """Somebody's own model on the endpoint, beside ours."""
        deploy_foreign(self.connection, "theirs", "marquee", share, ours)


def _nothing(_: Stage) -> None: ...


def _archive_only(stage: Stage) -> None:
    stage.cloud.fault("quota-exhausted")
    with pytest.raises(MarqueeError, match="taken back: endpoint marquee, model marquee"):
        stage.deploy(stage.archive)
    stage.cloud.book.clear()


def _empty_endpoint(stage: Stage) -> None:
    endpoint = {
        "display_name": "marquee",
        "dedicated_endpoint_enabled": True,
        "labels": {"managed-by": "marquee"},
    }
    stage.connection.endpoints.create_endpoint(
        parent=stage.connection.location, endpoint=endpoint, endpoint_id="marquee"
    ).result()


def _in_service(stage: Stage) -> None:
    stage.deploy(stage.archive)


def _another_in_service(stage: Stage) -> None:
    stage.deploy(stage.other)


def _service_and_predecessor(stage: Stage) -> None:
    stage.deploy(stage.other)
    stage.deploy(stage.third)


def _is_canary(stage: Stage) -> None:
    stage.deploy(stage.other)
    stage.deploy(stage.archive, traffic=20)


def _another_is_canary(stage: Stage) -> None:
    stage.deploy(stage.other)
    stage.deploy(stage.third, traffic=20)


def _is_predecessor(stage: Stage) -> None:
    stage.deploy(stage.archive)
    stage.deploy(stage.other)


def _older_marquee(stage: Stage) -> None:
    stage.deploy(stage.other)
    endpoint = stage.connection.endpoints.get_endpoint(name=stage.connection.endpoint_name("marquee"))
    endpoint.labels = without_roles(dict(endpoint.labels))
    stage.connection.endpoints.update_endpoint(endpoint=endpoint, update_mask={"paths": ["labels"]})


def _with_a_foreign_model(stage: Stage) -> None:
    stage.deploy(stage.other)
    stage.foreign(share=40, ours=60)


def _foreign_endpoint(stage: Stage) -> None:
    make_foreign_endpoint(stage.connection)
    stage.foreign(share=100, ours=0)


STATES = [
    (_nothing, ["deploy"]),
    (_archive_only, ["deploy"]),
    (_empty_endpoint, ["deploy", "--traffic", "10"]),
    (_in_service, ["deploy"]),
    (_in_service, ["deploy", "--set", "max_replicas=3"]),
    (_another_in_service, ["deploy"]),
    (_another_in_service, ["deploy", "--traffic", "10"]),
    (_service_and_predecessor, ["deploy"]),
    (_is_canary, ["deploy"]),
    (_another_is_canary, ["deploy", "--traffic", "10"]),
    (_is_predecessor, ["deploy"]),
    (_older_marquee, ["deploy"]),
    (_with_a_foreign_model, ["deploy"]),
    (_foreign_endpoint, ["deploy", "--adopt"]),
    (_is_canary, ["promote"]),
    (_is_canary, ["promote", "--discard"]),
    (_is_canary, ["rollback"]),
    (_is_predecessor, ["rollback"]),
    (_another_is_canary, ["teardown"]),
    (_with_a_foreign_model, ["teardown"]),
]


@pytest.fixture
def stage(
    cloud: RehearsalCloud,
    connection: Connection,
    configure: Callable[..., Any],
    archive: ArchiveFile,
    other_archive: ArchiveFile,
    third_archive: ArchiveFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Stage:
    monkeypatch.setenv("MARQUEE_CLOUD", str(cloud.folder.path))
    monkeypatch.chdir(tmp_path)
    return Stage(cloud, connection, configure, archive, other_archive, third_archive)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """A command in this process; returns the lines that it prints."""
    capsys.readouterr()
    app(list(words), standalone_mode=False)
    return capsys.readouterr().out.splitlines()


def planned(lines: list[str]) -> list[str]:
    """The calls that a printed plan stands for, in its order."""
    end = next((n for n, line in enumerate(lines) if not line.startswith("  ") and n), len(lines))
    calls = [" ".join(line.split()[:2]).rstrip(":") for line in lines[1:end]]
    return [CALLS[call] for call in calls if call in CALLS]


def logged(calls: list[str]) -> list[str]:
    """The calls of the log that change something or draw, repeated predictions once."""
    names = [call.partition("/")[0] for call in calls if call.partition("/")[0] in CALLS.values()]
    return [name for n, name in enumerate(names) if name != "RawPredict" or [name] != names[n - 1 : n]]


@pytest.mark.parametrize(("prepare", "words"), STATES)
def test_what_is_printed_is_what_happens(
    stage: Stage, prepare: Callable[[Stage], None], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(stage)
    if words[0] == "deploy":
        words = [*words, "--profile", "p100", "--set", f"archive={stage.archive.path}"]
        stage.cloud.book.calls.clear()
        before = run(capsys, "plan", *words[1:])
        assert logged(stage.cloud.book.calls) == []
    stage.cloud.book.calls.clear()
    after = run(capsys, *words)
    assert planned(after) == logged(stage.cloud.book.calls)
    if words[0] == "deploy":
        assert after[: len(before)] == before
    told = {line.split()[0]: line for line in after if " -> " in line}
    for model in status(stage.connection, stage.configure()).deployed:
        role = f", {model.role}" if model.role else ""
        assert told.pop(model.id).endswith(f"-> {model.traffic} %{role}")
    assert all(line.endswith("-> undeployed") for line in told.values())
