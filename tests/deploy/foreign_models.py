"""Endpoints and models as somebody makes them who knows nothing of marquee."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rehearsal_cloud import write_archive

from pipeline.deploy.connection import Connection


def make_foreign_endpoint(connection: Connection, name: str = "marquee") -> None:
    endpoint = {"display_name": name, "dedicated_endpoint_enabled": True, "labels": {"team": "search"}}
    connection.endpoints.create_endpoint(
        parent=connection.location, endpoint=endpoint, endpoint_id=name
    ).result()


def deploy_foreign(
    connection: Connection, model_id: str, endpoint: str, share: int = 100, ours: int = 0
) -> str:
    """Register and deploy as a program that knows nothing of marquee; returns the deployed model's id."""
    name = connection.endpoint_name(endpoint)
    bucket = "somebodys-bucket"
    if connection.storage.lookup_bucket(bucket) is None:
        connection.storage.create_bucket(bucket, location=connection.region)
    with tempfile.TemporaryDirectory() as folder:
        path = write_archive(Path(folder) / "model.mar", b"their weights")
        connection.storage.bucket(bucket).blob("their-model/model.mar").upload_from_filename(str(path))
    image = "us-docker.pkg.dev/vertex-ai/prediction/pytorch-gpu.2-4:latest"
    model = {
        "display_name": model_id,
        "artifact_uri": f"gs://{bucket}/their-model",
        "container_spec": {"image_uri": image},
    }
    request = {"parent": connection.location, "model": model, "model_id": model_id}
    connection.models.upload_model(request=request).result()
    machine = {"machine_type": "n1-standard-8", "accelerator_type": "NVIDIA_TESLA_T4", "accelerator_count": 1}
    deployed = {
        "model": connection.model_name(model_id),
        "display_name": model_id,
        "dedicated_resources": {"machine_spec": machine, "min_replica_count": 1, "max_replica_count": 1},
    }
    held = connection.endpoints.get_endpoint(name=name).deployed_models
    split = {"0": share, **({held[0].id: ours} if ours else {})}
    answer = connection.endpoints.deploy_model(
        endpoint=name, deployed_model=deployed, traffic_split=split
    ).result()
    return str(answer.deployed_model.id)
