"""Remove what marquee made, nothing else, and look again that it is gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.deploy.answers import explained
from pipeline.deploy.config import DeployConfig
from pipeline.deploy.connection import Connection
from pipeline.deploy.labels import is_ours
from pipeline.deploy.operations import await_running, wait
from pipeline.deploy.rollout import undeploy
from pipeline.deploy.survey import find_endpoint, model_versions
from pipeline.deploy.undo import split_without
from pipeline.errors import MarqueeError
from pipeline.progress import Progress

if TYPE_CHECKING:
    from google.cloud.storage import Blob, Bucket


@dataclass(frozen=True)
class Torn:
    """What went, and what was left because it is not marquee's."""

    removed: tuple[str, ...]
    left: tuple[str, ...]


def teardown(connection: Connection, config: DeployConfig, progress: Progress) -> Torn:
    """Endpoint, model and archives of this configuration. Raises MarqueeError if some is still there."""
    removed: list[str] = []
    left: list[str] = []
    with explained("tearing down"):
        _remove_endpoint(connection, config, removed, left, progress)
        _remove_model(connection, config, removed, left, progress)
        _remove_archives(connection, config, removed, left)
        remaining = leftovers(connection, config)
    if remaining:
        raise MarqueeError(f"still there after the teardown: {', '.join(remaining)}", cure="run it again")
    return Torn(tuple(removed), tuple(left))


def leftovers(connection: Connection, config: DeployConfig) -> list[str]:
    """What of marquee's is there, read afresh: the proof of a teardown is that this is empty."""
    found = []
    endpoint = find_endpoint(connection, config.endpoint)
    if endpoint is not None and is_ours(endpoint.labels):
        found.append(f"endpoint {config.endpoint}")
    versions = model_versions(connection, config.model)
    if versions and is_ours(versions[-1].labels):
        found.append(f"model {config.model}")
    bucket = connection.storage.lookup_bucket(config.bucket_name)
    if bucket is not None:
        found += [f"gs://{bucket.name}/{blob.name}" for blob in _archives(bucket, config.model)]
    return found


def _remove_endpoint(
    connection: Connection, config: DeployConfig, removed: list[str], left: list[str], progress: Progress
) -> None:
    name = connection.endpoint_name(config.endpoint)
    await_running(connection, name, progress)
    endpoint = find_endpoint(connection, config.endpoint)
    if endpoint is None:
        return
    ours = f"/models/{config.model}"
    for model in list(endpoint.deployed_models):
        # On an endpoint of ours everything is ours; on another only the deployments of our model are.
        if is_ours(endpoint.labels) or model.model.partition("@")[0].endswith(ours):
            split = split_without(endpoint, model.id)
            undeploy(connection, config.endpoint, model.id, split, progress)
            removed.append(f"deployed model {model.id}")
            endpoint = connection.endpoints.get_endpoint(name=name)
    if not is_ours(endpoint.labels):
        left.append(f"endpoint {config.endpoint}: it was not made by marquee")
        return
    wait(connection.endpoints.delete_endpoint(name=name), "deleting the endpoint", progress)
    removed.append(f"endpoint {config.endpoint}")


def _remove_model(
    connection: Connection, config: DeployConfig, removed: list[str], left: list[str], progress: Progress
) -> None:
    name = connection.model_name(config.model)
    await_running(connection, name, progress)
    versions = model_versions(connection, config.model)
    if not versions:
        return
    if not is_ours(versions[-1].labels):
        left.append(f"model {config.model}: it was not made by marquee")
        return
    wait(connection.models.delete_model(name=name), "deleting the model", progress)
    removed.append(f"model {config.model} with {len(versions)} version(s)")


def _remove_archives(
    connection: Connection, config: DeployConfig, removed: list[str], left: list[str]
) -> None:
    bucket = connection.storage.lookup_bucket(config.bucket_name)
    if bucket is None:
        return
    for blob in _archives(bucket, config.model):
        blob.delete(if_generation_match=blob.generation)
        removed.append(f"gs://{bucket.name}/{blob.name}")
    if not is_ours(bucket.labels):
        left.append(f"bucket {bucket.name}: it was not made by marquee")
    elif next(iter(bucket.list_blobs(max_results=1)), None) is not None:
        left.append(f"bucket {bucket.name}: it holds other things too")
    else:
        bucket.delete()
        removed.append(f"bucket {bucket.name}")


def _archives(bucket: Bucket, model_id: str) -> list[Blob]:
    return list(bucket.list_blobs(prefix=f"marquee/{model_id}/"))
