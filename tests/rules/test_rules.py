"""The table of rules: complete, dated, and each rule refuses a value that breaks it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from string import Formatter

import pytest

from pipeline import rules

BEFORE, AFTER = date(2026, 11, 21), date(2027, 1, 14)
GPU_2_4 = "us-docker.pkg.dev/vertex-ai/prediction/pytorch-gpu.2-4:latest"
UPLOAD = rules.Upload("shapes", GPU_2_4, "us-central1", "gs://bucket/shapes")
P100 = rules.Deployment("us-central1", GPU_2_4, "n1-standard-8", "NVIDIA_TESLA_P100", 1)


def names(violations: list[rules.Violation]) -> list[str]:
    return [violation.rule.id for violation in violations]


def test_every_rule_has_a_code_a_source_and_a_date() -> None:
    from google.api_core.exceptions import from_grpc_status
    from grpc import StatusCode

    for rule in rules.table().rules.values():
        assert from_grpc_status(StatusCode[rule.code], "x").message == "x"
        assert rule.source
        assert rule.cure
        assert rule.checked_on.year == 2026
        assert rule.text


def test_every_placeholder_of_a_cure_is_one_of_the_text() -> None:
    for rule in rules.table().rules.values():
        known = {name for _, name, _, _ in Formatter().parse(rule.text) if name}
        asked = {name for _, name, _, _ in Formatter().parse(rule.cure) if name}
        assert asked <= known | {"value", "allowed"}, rule.id


def test_a_good_upload_and_deployment_break_nothing() -> None:
    assert rules.check_upload(UPLOAD, BEFORE) == []
    assert rules.check_deploy(P100, BEFORE) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"display_name": "x" * 129}, "display_name"),
        ({"image_uri": GPU_2_4.replace("2-4", "1-12")}, "image_ended"),
        ({"image_uri": GPU_2_4.replace("2-4", "9-9")}, "image_unknown"),
        ({"image_uri": "docker.io/pytorch/torchserve:latest"}, "image_unknown"),
        ({"image_uri": "us-docker.pkg.dev/me/repo/marquee:1"}, "image_region"),
        ({"artifact_uri": "/home/me/model"}, "artifact_uri_shape"),
        ({"artifact_uri": "gs://bucket"}, "artifact_uri_root"),
        ({"artifact_uri": "gs://bucket/x/model.mar"}, "archive_name"),
        ({"model_id": "1shapes"}, "model_id"),
        ({"version_aliases": ["V1"]}, "version_alias"),
        ({"labels": {"Digest": "x"}}, "labels"),
        ({"region": "moon-1"}, "region_unknown"),
        ({"deployment_timeout_seconds": 7201}, "deployment_timeout"),
    ],
)
def test_an_upload_that_breaks_one_rule(change: dict[str, object], expected: str) -> None:
    assert names(rules.check_upload(replace(UPLOAD, **change), BEFORE)) == [expected]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"machine_type": "n9-standard-8"}, "machine_unknown"),
        ({"machine_type": "g2-standard-8"}, "accelerator_machine"),
        ({"accelerator_type": "NVIDIA_TESLA_K80"}, "accelerator_unknown"),
        ({"accelerator_count": 3}, "accelerator_count"),
        ({"machine_type": "n1-standard-32"}, "accelerator_count"),
        ({"region": "europe-west4"}, "accelerator_region"),
        ({"min_replicas": 0}, "replica_count"),
        ({"min_replicas": 3, "max_replicas": 2}, "replica_count"),
        ({"autoscaling": {"cpu": 101}}, "autoscaling_target"),
        ({"image_uri": GPU_2_4.replace("gpu", "cpu")}, "image_accelerator"),
    ],
)
def test_a_deployment_that_breaks_one_rule(change: dict[str, object], expected: str) -> None:
    assert names(rules.check_deploy(replace(P100, **change), BEFORE)) == [expected]  # type: ignore[arg-type]


def test_prebuilt_images_end_on_the_day_and_not_before() -> None:
    assert rules.check_image(GPU_2_4, "us-central1", date(2027, 1, 13)) == []
    (violation,) = rules.check_image(GPU_2_4, "us-central1", AFTER)
    assert "2027-01-14" in violation.message
    assert rules.check_image("us-central1-docker.pkg.dev/me/repo/marquee:1", "us-central1", AFTER) == []


def test_scale_to_zero_only_on_a_dedicated_endpoint() -> None:
    assert rules.check_deploy(replace(P100, min_replicas=0, dedicated=True), BEFORE) == []


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["model.mar"], []),
        (["model.mar", "README.md", "unet/config.json"], []),
        ([], ["artifact_missing"]),
        (["stable_diffusion.mar"], ["archive_name"]),
        (["model.mar", "other.mar"], ["archive_name"]),
        (["deep/model.mar"], ["archive_name"]),
    ],
)
def test_a_model_directory_holds_model_mar_exactly_once(found: list[str], expected: list[str]) -> None:
    assert names(rules.check_model_directory("gs://b/m", found)) == expected


def test_traffic_adds_up_to_100_over_models_that_are_there() -> None:
    assert rules.check_traffic({"1": 90, "0": 10}, {"1", "0"}) == []
    assert rules.check_traffic({}, set()) == []
    assert names(rules.check_traffic({"1": 90}, {"1"})) == ["traffic_sum"]
    assert rules.check_traffic({}, {"1"}) == []
    assert names(rules.check_traffic({"1": 150, "2": -50}, {"1", "2"})) == ["traffic_sum"]
    assert names(rules.check_traffic({"7": 100}, {"1"})) == ["traffic_target"]


def test_delete_orders() -> None:
    assert names(rules.check_model_delete("models/1", ["endpoints/2"])) == ["model_deployed"]
    assert rules.check_model_delete("models/1", []) == []
    assert names(rules.check_endpoint_delete("endpoints/2", ["5"])) == ["endpoint_in_use"]
    assert names(rules.check_undeploy("1", {"2": 60}, ["2"])) == ["undeploy_traffic"]
    assert rules.check_undeploy("1", {"2": 100}, ["2"]) == []
    assert rules.check_undeploy("1", {}, []) == []
    assert names(rules.check_version_delete("1", True, 2)) == ["default_version"]
    assert rules.check_version_delete("1", True, 1) == []


def test_payloads_both_ways_and_timeouts() -> None:
    (too_big,) = rules.check_request_size(1_572_865, dedicated=False)
    assert too_big.message == "Request payload size exceeds the limit: 1572864 bytes."
    assert rules.check_request_size(1_572_864, dedicated=False) == []
    assert rules.check_request_size(1_572_865, dedicated=True) == []
    assert names(rules.check_response_size(10_000_001, True, "5")) == ["response_size"]
    assert rules.predict_timeout(dedicated=False, inference_timeout=700) == 60
    assert rules.predict_timeout(dedicated=True, inference_timeout=700) == 700
    assert rules.predict_timeout(dedicated=True) == 600


def test_an_endpoint_id_and_its_inference_timeout() -> None:
    assert rules.check_endpoint_create("shapes", "shapes-1", {}, True, 3600) == []
    assert names(rules.check_endpoint_create("shapes", "1234567890")) == ["endpoint_id"]
    assert names(rules.check_endpoint_create("shapes", "shapes-")) == ["endpoint_id"]
    assert names(rules.check_endpoint_create("shapes", None, {}, True, 3601)) == ["inference_timeout"]
    assert names(rules.check_endpoint_create("shapes", None, {}, False, 120)) == ["inference_timeout"]


def test_the_table_agrees_with_the_sdk() -> None:
    from google.cloud.aiplatform.constants import prediction
    from google.cloud.aiplatform.utils import constants  # type: ignore[attr-defined]

    tags = {uri.split(".")[-1].removesuffix(":latest") for uri in prediction.PYTORCH_CONTAINER_URIS}
    assert tags <= set(rules.table().prebuilt)
    assert set(rules.table().regions) <= set(constants.SUPPORTED_REGIONS)


def test_prices_are_dated_and_scale() -> None:
    one = rules.replica_price("n1-standard-8", "NVIDIA_TESLA_P100", 1, "us-central1", spot=False)
    two = rules.replica_price("n1-standard-8", "NVIDIA_TESLA_P100", 2, "us-central1", spot=False)
    spot = rules.replica_price("n1-standard-8", "NVIDIA_TESLA_P100", 1, "us-central1", spot=True)
    assert one is not None
    assert two is not None
    assert spot is not None
    assert one.dollars_per_hour == pytest.approx(2.116)
    assert two.dollars_per_hour > one.dollars_per_hour > spot.dollars_per_hour
    assert one.checked_on == date(2026, 11, 21)
    assert one.source.startswith("https://")
    assert rules.replica_price("m3-ultramem-32", None, 0, "us-central1", spot=False) is None
