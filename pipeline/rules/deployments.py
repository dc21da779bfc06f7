"""The rules of DeployModel, UpdateEndpoint and of deleting models and endpoints."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from pipeline.rules.images import check_image, parse_prebuilt
from pipeline.rules.table import Violation, table
from pipeline.rules.uploads import check_region

PERCENT_TARGETS = ("cpu", "accelerator")


@dataclass(frozen=True)
class Deployment:
    """The plain values of one DeployModel request. ``autoscaling`` maps "cpu", "accelerator" (percent) or
    "requests" (per minute and replica) to its target."""

    region: str
    image_uri: str
    machine_type: str
    accelerator_type: str | None = None
    accelerator_count: int = 0
    min_replicas: int = 1
    max_replicas: int = 1
    dedicated: bool = False
    autoscaling: Mapping[str, int] | None = None


def check_deploy(deployment: Deployment, today: date) -> list[Violation]:
    """Every rule that a DeployModel request breaks; ``check_traffic`` checks its traffic split."""
    found = check_region(deployment.region) + check_image(deployment.image_uri, deployment.region, today)
    found += _check_hardware(deployment) + _check_replicas(deployment)
    for metric, target in (deployment.autoscaling or {}).items():
        if target < 1 or (metric in PERCENT_TARGETS and target > 100):
            found.append(table().violation("autoscaling_target", f"autoscaling.{metric}", target))
    return found


def _check_hardware(deployment: Deployment) -> list[Violation]:
    found: list[Violation] = []
    machine, name, count = deployment.machine_type, deployment.accelerator_type, deployment.accelerator_count
    if machine not in table().machines:
        found.append(table().violation("machine_unknown", "machine_type", machine))
    image = parse_prebuilt(deployment.image_uri)
    if image and (image.kind == "gpu") != bool(name):
        facts = {"kind": image.kind, "accelerator": name or "none"}
        found.append(table().violation("image_accelerator", "image_uri", deployment.image_uri, **facts))
    if not name:
        return found
    accelerator = table().accelerators.get(name)
    if accelerator is None:
        return [*found, table().violation("accelerator_unknown", "accelerator_type", name)]
    if machine in table().machines:
        counts = accelerator.machines.get(machine)
        if counts is None:
            found.append(table().violation("accelerator_machine", "accelerator_type", name, machine=machine))
        elif count not in counts:
            facts = {"accelerator": name, "machine": machine, "allowed": ", ".join(map(str, counts))}
            found.append(table().violation("accelerator_count", "accelerator_count", count, **facts))
    if deployment.region in table().regions and deployment.region not in accelerator.regions:
        facts = {"region": deployment.region, "allowed": ", ".join(accelerator.regions)}
        found.append(table().violation("accelerator_region", "accelerator_type", name, **facts))
    return found


def _check_replicas(deployment: Deployment) -> list[Violation]:
    lowest = 0 if deployment.dedicated else 1
    minimum, maximum = deployment.min_replicas, deployment.max_replicas
    if lowest <= minimum <= maximum and maximum >= 1:
        return []
    facts = {"minimum": minimum, "maximum": maximum}
    return [table().violation("replica_count", "min_replica_count", minimum, **facts)]


def check_traffic(split: Mapping[str, int], deployed: Collection[str]) -> list[Violation]:
    """``deployed`` holds the endpoint's deployed model ids, "0" included while one is being deployed.

    An empty split lets the endpoint take no requests (the text of ``Endpoint.traffic_split`` in
    google-cloud-aiplatform 2.7.0: "must add up to 100, or map must be empty").
    """
    found = [
        table().violation("traffic_target", "traffic_split", model_id)
        for model_id in split
        if model_id not in deployed
    ]
    total = sum(split.values())
    if split and (total != 100 or any(share < 0 for share in split.values())):
        found.append(table().violation("traffic_sum", "traffic_split", total))
    return found


def check_undeploy(
    model_id: str, split_after: Mapping[str, int], remaining: Collection[str]
) -> list[Violation]:
    """``split_after`` is the traffic once ``model_id`` is gone; it adds up to 100 over those remaining."""
    total = sum(share for key, share in split_after.items() if key != model_id)
    if split_after.get(model_id, 0) or (remaining and total != 100):
        return [table().violation("undeploy_traffic", "deployed_model_id", model_id, sum=total)]
    return []


def check_model_delete(model: str, deployed_on: Sequence[str]) -> list[Violation]:
    """``deployed_on`` are the resource names of the endpoints that hold a version of the model."""
    if not deployed_on:
        return []
    return [table().violation("model_deployed", "model", model, where=", ".join(deployed_on))]


def check_version_delete(version: str, is_default: bool, versions: int) -> list[Violation]:
    """The default version cannot be deleted while others exist; ``versions`` is the number of all."""
    if not is_default or versions == 1:
        return []
    return [table().violation("default_version", "version", version)]


def check_endpoint_delete(endpoint: str, deployed: Collection[str]) -> list[Violation]:
    if not deployed:
        return []
    return [table().violation("endpoint_in_use", "endpoint", endpoint)]
