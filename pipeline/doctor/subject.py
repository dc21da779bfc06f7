"""What the doctor examines: a deployment of marquee's, or the arguments of somebody's own SDK program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.deploy.config import DeployConfig
from pipeline.errors import MarqueeError


@dataclass(frozen=True)
class Subject:
    """Plain facts. ``archive`` is the file on this machine, None when only its name is known.

    ``client_timeout`` is in seconds; ``config_properties`` is a TorchServe configuration of the image's own.
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
    """A deployment of marquee's own, which names and places the archive itself."""
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
    """A YAML file with the SDK's own words: the arguments of upload, create, deploy and predict.

    ``archive`` names the local file, relative to the YAML file. Raises MarqueeError.
    """
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise MarqueeError(f"{file} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise MarqueeError(f"{file} holds no arguments: write `upload: {{...}}`, `deploy: {{...}}`")
    upload, deploy = _part(values, "upload"), _part(values, "deploy")
    endpoint, predict = _part(values, "endpoint"), _part(values, "predict")
    archive = file.parent / str(values["archive"]) if values.get("archive") else None
    return Subject(
        region=str(_part(values, "init").get("location", "us-central1")),
        image_uri=str(upload.get("serving_container_image_uri", "")),
        artifact_uri=str(upload.get("artifact_uri", "")),
        archive_name=archive.name if archive else "model.mar",
        archive=archive if archive and archive.exists() else None,
        machine=str(deploy.get("machine_type", "n1-standard-2")),
        accelerator=deploy.get("accelerator_type"),
        accelerator_count=int(deploy.get("accelerator_count", 0)),
        min_replicas=int(deploy.get("min_replica_count", 1)),
        max_replicas=int(deploy.get("max_replica_count", 1)),
        dedicated=bool(endpoint.get("dedicated_endpoint_enabled", False)),
        inference_timeout=endpoint.get("inference_timeout"),
        client_timeout=predict.get("timeout"),
    )


def _part(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = values.get(name) or {}
    if not isinstance(part, dict):
        raise MarqueeError(f"{name} must hold the call's arguments, not {part!r}")
    return part
