"""Converts machines, replicas and targets between the configuration and Vertex AI's messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.deploy.config import DeployConfig
from pipeline.deploy.inventory import Hardware, Scaling
from pipeline.rules import replica_price

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1.types import DedicatedResources, DeployedModel

_METRICS = {
    "cpu": "aiplatform.googleapis.com/prediction/online/cpu/utilization",
    "accelerator": "aiplatform.googleapis.com/prediction/online/accelerator/duty_cycle",
    "requests": "aiplatform.googleapis.com/prediction/online/request_count",
}
_TARGETS = {metric: name for name, metric in _METRICS.items()}


def wanted_resources(config: DeployConfig) -> DedicatedResources:
    """Machine, accelerator, replicas and autoscaling targets."""
    from google.cloud.aiplatform_v1.types import (
        AcceleratorType,
        AutoscalingMetricSpec,
        DedicatedResources,
        MachineSpec,
    )

    machine = MachineSpec(machine_type=config.machine)
    if config.accelerator:
        machine.accelerator_type = getattr(AcceleratorType, config.accelerator)
        machine.accelerator_count = config.accelerator_count
    return DedicatedResources(
        machine_spec=machine,
        min_replica_count=config.min_replicas,
        max_replica_count=config.max_replicas,
        spot=config.spot,
        autoscaling_metric_specs=[
            AutoscalingMetricSpec(metric_name=_METRICS[name], target=target)
            for name, target in config.autoscaling.targets().items()
        ],
    )


def hardware_of(model: DeployedModel) -> Hardware:
    machine = model.dedicated_resources.machine_spec
    accelerator = machine.accelerator_type.name if machine.accelerator_count else None
    spot = bool(model.dedicated_resources.spot)
    return Hardware(machine.machine_type, accelerator, machine.accelerator_count, spot, model.service_account)


def scaling_of(model: DeployedModel) -> Scaling:
    resources = model.dedicated_resources
    targets = sorted(
        (_TARGETS.get(spec.metric_name, spec.metric_name), spec.target)
        for spec in resources.autoscaling_metric_specs
    )
    return Scaling(resources.min_replica_count, resources.max_replica_count, tuple(targets))


def price_of(model: DeployedModel, region: str) -> float | None:
    """Dollars per hour of one replica of a deployed model, None where the table has no price."""
    hardware = hardware_of(model)
    price = replica_price(
        hardware.machine, hardware.accelerator, hardware.accelerator_count, region, hardware.spot
    )
    return price.dollars_per_hour if price else None
