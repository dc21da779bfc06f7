"""The doctor's subject: a deployment of marquee's, or the arguments of a program that uses Google's SDK."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.deploy.config import DeployConfig
from pipeline.errors import MarqueeError
from pipeline.yaml_text import read_yaml

T = TypeVar("T")


@dataclass(frozen=True)
class Subject:
    """A deployment to examine. ``archive`` is the file on this machine, None when only its name is known.

    ``client_timeout`` is in seconds; ``config_properties`` is the image's TorchServe configuration.
    """

    region: str
    image_uri: str
    artifact_uri: str
    archive_name: str
    archive: Path | None
    machine: str
    accelerator: str | None
    accelerator_count: int
    min_replicas: int = 1
    max_replicas: int = 1
    dedicated: bool = False
    inference_timeout: int | None = None
    client_timeout: float | None = None
    container: str = ""
    uploads: bool = False
    config_properties: Path | None = None


def subject_of(config: DeployConfig, archive: Path, config_properties: Path | None = None) -> Subject:
    """The subject of a deployment by marquee, which chooses the archive's name and folder."""
    return Subject(
        region=config.region,
        image_uri=config.image_uri,
        artifact_uri=f"gs://{config.bucket_name}/marquee/{config.model}",
        archive_name="model.mar",
        archive=archive,
        machine=config.machine,
        accelerator=config.accelerator,
        accelerator_count=config.accelerator_count,
        min_replicas=config.min_replicas,
        max_replicas=config.max_replicas,
        dedicated=config.dedicated,
        inference_timeout=config.inference_timeout,
        container=config.container,
        uploads=True,
        config_properties=config_properties,
    )


def read_arguments(file: Path) -> Subject:
    """Read a YAML file of the SDK's arguments, by their names there: upload, create, deploy, predict.

    ``archive`` names the local file, relative to the YAML file. Raises MarqueeError.
    """
    values = read_yaml(file, "name the file with --arguments")
    if not isinstance(values, dict):
        raise MarqueeError(f"{file} holds no arguments: write `upload: {{...}}`, `deploy: {{...}}`")
    upload, deploy = _part(values, "upload"), _part(values, "deploy")
    endpoint, predict = _part(values, "endpoint"), _part(values, "predict")
    name = _text(values, "archive")
    archive = file.parent / name if name else None
    return Subject(
        region=_text(_part(values, "init"), "location") or "us-central1",
        image_uri=_text(upload, "serving_container_image_uri") or "",
        artifact_uri=_text(upload, "artifact_uri") or "",
        archive_name=archive.name if archive else "model.mar",
        archive=archive if archive and archive.exists() else None,
        machine=_text(deploy, "machine_type") or "n1-standard-2",
        accelerator=_text(deploy, "accelerator_type"),
        accelerator_count=_whole(deploy, "accelerator_count", 0),
        min_replicas=_whole(deploy, "min_replica_count", 1),
        max_replicas=_whole(deploy, "max_replica_count", 1),
        dedicated=bool(endpoint.get("dedicated_endpoint_enabled", False)),
        inference_timeout=_whole(endpoint, "inference_timeout", None),
        client_timeout=_seconds(predict, "timeout"),
    )


def _text(part: Mapping[str, Any], name: str) -> str | None:
    """A text, or None; null means the same as a missing key, as in the SDK."""
    value = part.get(name)
    if value is not None and not isinstance(value, str):
        raise MarqueeError(f"{name} is {value!r}; it must be a text")
    return value


def _whole(part: Mapping[str, Any], name: str, default: T) -> int | T:
    value = part.get(name)
    if value is not None and type(value) is not int:
        raise MarqueeError(f"{name} is {value!r}; it must be a whole number")
    return default if value is None else value


def _seconds(part: Mapping[str, Any], name: str) -> float | None:
    value = part.get(name)
    if value is not None and not (type(value) in (int, float) and 0 < value < float("inf")):
        raise MarqueeError(f"{name} is {value!r}; it must be a number of seconds above 0")
    return value


def _part(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = values.get(name) or {}
    if not isinstance(part, dict):
        raise MarqueeError(f"{name} is {part!r}; it must be the arguments of the call, as KEY: VALUE")
    return part
