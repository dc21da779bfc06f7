"""Carry out a plan on Vertex AI and Cloud Storage: its actions, in order, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.deploy import plan as plans
from pipeline.deploy.answers import translating_google_errors
from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.config import DeployConfig
from pipeline.deploy.connection import Connection
from pipeline.deploy.operations import wait
from pipeline.deploy.register import register
from pipeline.deploy.rollout import (
    create_endpoint,
    deploy_model,
    read_unchanged,
    resize,
    set_traffic,
    undeploy,
)
from pipeline.deploy.smoke import Proof, find_client, prove
from pipeline.deploy.smoke_picture import Expected
from pipeline.deploy.upload import create_bucket, delete_archive, delete_bucket, send_archive
from pipeline.progress import Progress


@dataclass(frozen=True)
class Supplies:
    """A deploy's input beside its plan: the archive, and the expected smoke picture if one is configured."""

    archive: ArchiveFile
    expected: Expected | None = None


@dataclass
class Execution:
    """A plan that is being carried out. ``split`` is the traffic after the actions done so far."""

    connection: Connection
    config: DeployConfig
    progress: Progress
    split: dict[str, int]
    supplies: Supplies | None = None
    version_id: str | None = None
    sent_bytes: int = 0
    proof: Proof | None = None
    done: list[plans.Action] = field(default_factory=list)

    def carry_out(self, action: plans.Action) -> None:
        """Carry out one action. Raises MarqueeError; the actions before it stay done."""
        step = _STEPS.get(type(action))
        if step is None:  # there is nothing to do for a Keep
            return
        with translating_google_errors(f"{action.thing} ({action.verb})"):
            step(self, action)
        self.done.append(action)

    @property
    def archive(self) -> ArchiveFile:
        assert self.supplies is not None, "only a deploy has actions that need an archive"
        return self.supplies.archive


def _create_bucket(run: Execution, action: plans.CreateBucket) -> None:
    create_bucket(run.connection, action.bucket)


def _upload(run: Execution, action: plans.Upload) -> None:
    run.sent_bytes = send_archive(run.connection, run.archive, action.thing, run.progress)


def _register(run: Execution, action: plans.Register) -> None:
    run.version_id = register(run.connection, run.config, run.archive, action.known, run.progress)


def _create_endpoint(run: Execution, _: plans.CreateEndpoint) -> None:
    create_endpoint(run.connection, run.config, run.progress)


def _deploy(run: Execution, action: plans.Deploy) -> None:
    read_unchanged(run.connection, run.config.endpoint, run.split)
    deploy_model(run.connection, run.config, action, action.version_id or _version(run), run.progress)
    run.split = action.split


def _version(run: Execution) -> str:
    assert run.version_id is not None, "a plan registers a version before it uses it"
    return run.version_id


def _resize(run: Execution, action: plans.Resize) -> None:
    resize(run.connection, run.config, action.deployed_id, run.progress)


def _smoke(run: Execution, action: plans.Smoke) -> None:
    run.progress.note("asking the new model for its first picture")
    client = find_client(run.connection, run.config.endpoint)
    expected = run.supplies.expected if run.supplies else None
    run.proof = prove(client, run.config.smoke, run.archive, action.deployed_id, run.progress, expected)


def _traffic(run: Execution, action: plans.Traffic) -> None:
    endpoint = read_unchanged(run.connection, run.config.endpoint, run.split)
    set_traffic(run.connection, endpoint, action)
    run.split = action.split


def _make_default(run: Execution, action: plans.MakeDefault) -> None:
    name = f"{run.connection.model_name(action.model_id)}@{action.version_id or _version(run)}"
    run.connection.models.merge_version_aliases(name=name, version_aliases=["default"])


def _undeploy(run: Execution, action: plans.Undeploy) -> None:
    read_unchanged(run.connection, run.config.endpoint, run.split)
    undeploy(run.connection, run.config.endpoint, action.deployed_id, action.split, run.progress)
    run.split = action.split


def _delete_endpoint(run: Execution, action: plans.DeleteEndpoint) -> None:
    name = run.connection.endpoint_name(action.endpoint_id)
    operation = run.connection.endpoints.delete_endpoint(name=name)
    wait(run.connection, operation, "deleting the endpoint", run.progress)


def _delete_model(run: Execution, action: plans.DeleteModel) -> None:
    operation = run.connection.models.delete_model(name=run.connection.model_name(action.model_id))
    wait(run.connection, operation, "deleting the model", run.progress)


def _delete_version(run: Execution, action: plans.DeleteVersion) -> None:
    name = f"{run.connection.model_name(action.model_id)}@{action.version_id or _version(run)}"
    operation = run.connection.models.delete_model_version(name=name)
    wait(run.connection, operation, "deleting the version", run.progress)


def _delete_archive(run: Execution, action: plans.DeleteArchive) -> None:
    delete_archive(run.connection, action.uri, action.generation)


def _delete_bucket(run: Execution, action: plans.DeleteBucket) -> None:
    delete_bucket(run.connection, action.bucket)


_STEPS: dict[type[plans.Action], Callable[[Execution, Any], None]] = {
    plans.CreateBucket: _create_bucket,
    plans.Upload: _upload,
    plans.Register: _register,
    plans.CreateEndpoint: _create_endpoint,
    plans.Deploy: _deploy,
    plans.Resize: _resize,
    plans.Smoke: _smoke,
    plans.Traffic: _traffic,
    plans.MakeDefault: _make_default,
    plans.Undeploy: _undeploy,
    plans.DeleteEndpoint: _delete_endpoint,
    plans.DeleteModel: _delete_model,
    plans.DeleteVersion: _delete_version,
    plans.DeleteArchive: _delete_archive,
    plans.DeleteBucket: _delete_bucket,
}
