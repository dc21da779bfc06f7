"""Each known failure happens in the local cloud, and the doctor reports it before a deployment."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from foreign import RAISES, TUTORIAL, write_foreign
from google.api_core.exceptions import GoogleAPICallError
from rehearsal_cloud import RehearsalCloud, rehearsal_cloud, write_archive

from pipeline.cloud.clock import UTC
from pipeline.deploy.archive_file import read_archive
from pipeline.deploy.config import DeployConfig, load_config
from pipeline.deploy.connection import Connection, connect
from pipeline.deploy.flow import deploy
from pipeline.deploy.smoke import find_client
from pipeline.deploy.verify import verify
from pipeline.doctor.examine import examine, examine_cloud, rehearse
from pipeline.doctor.findings import Finding
from pipeline.doctor.subject import Subject, subject_of
from pipeline.errors import MarqueeError
from pipeline.progress import Silent

TODAY = date(2026, 11, 21)
IMAGE = "us-docker.pkg.dev/vertex-ai/prediction/pytorch-gpu.2-4:latest"
P100 = {"machine_type": "n1-standard-8", "accelerator_type": "NVIDIA_TESLA_P100", "accelerator_count": 1}


def config_of(archive: Path, **values: Any) -> DeployConfig:
    return load_config(None, {"archive": str(archive), **values}, "p100", TODAY)


def named(findings: list[Finding]) -> set[str]:
    """The failures that were named; every one with a sentence and a cure."""
    bad = [finding for finding in findings if finding.level != "ok"]
    assert all(finding.sentence and finding.cure and "\n" not in finding.cure for finding in bad)
    return {finding.failure for finding in bad if finding.level == "problem"}


def try_to_deploy(connection: Connection, config: DeployConfig) -> str:
    """What deploying ends with: Google's words for it."""
    with pytest.raises(MarqueeError) as raised:
        deploy(connection, config, read_archive(Path(config.archive)), Silent())
    return str(raised.value)


def upload(connection: Connection, folder: str, image: str = IMAGE) -> str:
    """Model.upload of gs://my-bucket/FOLDER with Google's client alone; the model's name."""
    model = {
        "display_name": "theirs",
        "artifact_uri": f"gs://my-bucket/{folder}".rstrip("/"),
        "container_spec": {"image_uri": image},
    }
    operation = connection.models.upload_model(parent=connection.location, model=model)
    return str(operation.result(timeout=60).model)


def serve(connection: Connection, model: str, dedicated: bool = False) -> str:
    """Endpoint.create and deploy with Google's client alone; the endpoint's name."""
    endpoint = {"display_name": "theirs", "dedicated_endpoint_enabled": dedicated}
    made = connection.endpoints.create_endpoint(
        parent=connection.location, endpoint=endpoint, endpoint_id="theirs"
    )
    name = str(made.result(timeout=60).name)
    resources = {"machine_spec": P100, "min_replica_count": 1, "max_replica_count": 1}
    deployed = {"model": model, "dedicated_resources": resources}
    operation = connection.endpoints.deploy_model(
        endpoint=name, deployed_model=deployed, traffic_split={"0": 100}
    )
    operation.result(timeout=120)
    return name


def put(connection: Connection, **objects: bytes | Path) -> None:
    """Fill gs://my-bucket; keywords name objects, __ standing for / and _DOT_ for a dot."""
    if connection.storage.lookup_bucket("my-bucket") is None:
        connection.storage.create_bucket("my-bucket", location="us-central1")
    for name, content in objects.items():
        blob = connection.storage.bucket("my-bucket").blob(name.replace("__", "/").replace("_DOT_", "."))
        blob.upload_from_string(content.read_bytes() if isinstance(content, Path) else content)


def theirs(archive: Path | None, folder: str = "theirs", **values: Any) -> Subject:
    """Somebody's own SDK program, with whose words `--arguments` would describe it."""
    subject = Subject(
        region="us-central1",
        image_uri=IMAGE,
        artifact_uri=f"gs://my-bucket/{folder}",
        archive_name="model.mar",
        archive=archive,
        machine="n1-standard-8",
        accelerator="NVIDIA_TESLA_P100",
        accelerator_count=1,
    )
    return replace(subject, **values)


@pytest.mark.torchserve
def test_samples_3485_a_repository_that_is_gone(connection: Connection, tmp_path: Path) -> None:
    archive = write_foreign(tmp_path / "model.mar", TUTORIAL)
    assert {"hub_gone", "hub_at_start"} <= named(examine(theirs(archive), TODAY))
    put(connection, theirs__model_DOT_mar=archive)
    with pytest.raises(GoogleAPICallError, match="Model server never became ready"):
        serve(connection, upload(connection, "theirs"))


@pytest.mark.torchserve
def test_samples_2122_an_exception_in_the_handler_is_503(connection: Connection, tmp_path: Path) -> None:
    archive = write_foreign(tmp_path / "model.mar", RAISES)
    findings = examine(theirs(archive), TODAY)
    assert "foreign_handler" in {finding.failure for finding in findings}
    assert named(rehearse(theirs(archive))) == {"does_not_serve"}
    put(connection, theirs__model_DOT_mar=archive)
    serve(connection, upload(connection, "theirs"), dedicated=True)
    client = find_client(connection, "theirs")
    reply = client.exchange({"instances": [{"prompt": "\u00e9"}]}, 60)
    assert (reply.status, "Prediction failed" in reply.text) == (503, True)


def test_samples_2082_the_fine_tune_is_not_what_answers(
    cloud: RehearsalCloud, connection: Connection, tmp_path: Path
) -> None:
    foreign = write_foreign(tmp_path / "foreign.mar", TUTORIAL.replace("runwayml", "somebody"), weights=True)
    assert named(examine(theirs(foreign), TODAY)) == {"hub_at_start", "weights_not_loaded"}
    archive = write_archive(tmp_path / "model.mar")
    config = config_of(archive)
    deploy(connection, config, read_archive(archive), Silent())
    cloud.painters[0].swapped = "ba5e" * 16
    with pytest.raises(MarqueeError, match="ba5e"):
        verify(connection, config, read_archive(archive))


@pytest.mark.parametrize("name", ["stable_diffusion_DOT_mar", "deeper__model_DOT_mar"])
def test_samples_1796_a_wrong_archive_name(connection: Connection, tmp_path: Path, name: str) -> None:
    put(connection, **{f"theirs__{name}": b"zip"})
    assert named(examine_cloud(connection, theirs(None), False)) == {"archive_name"}
    with pytest.raises(GoogleAPICallError, match=r"expected to contain exactly one of: \[model.mar\]"):
        upload(connection, "theirs")


def test_weights_beside_the_archive_are_not_loaded(connection: Connection, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "model.mar")
    put(connection, theirs__model_DOT_mar=archive, theirs__unet__weights_DOT_safetensors=b"mine")
    assert named(examine_cloud(connection, theirs(archive), False)) == {"weights_not_loaded"}
    serve(connection, upload(connection, "theirs"), dedicated=True)
    described, _ = find_client(connection, "theirs").describe()
    assert described["weights_digest"] == read_archive(archive).weights_digest


def test_nothing_in_the_bucket(connection: Connection) -> None:
    assert named(examine_cloud(connection, theirs(None), False)) == {"bucket_empty"}
    with pytest.raises(GoogleAPICallError):
        upload(connection, "theirs")


def test_samples_3710_storage_may_not_be_read(
    cloud: RehearsalCloud, connection: Connection, tmp_path: Path
) -> None:
    cloud.fault("storage-permission-denied")
    archive = write_archive(tmp_path / "model.mar")
    config = config_of(archive)
    findings = examine_cloud(connection, subject_of(config, archive), False)
    assert named(findings) == {"permission"}
    assert "storage." in next(finding.sentence for finding in findings if finding.failure)
    assert "403" in try_to_deploy(connection, config) or "denied" in try_to_deploy(connection, config)


def test_vertex_may_not_be_used(cloud: RehearsalCloud, connection: Connection, tmp_path: Path) -> None:
    cloud.fault("permission-denied")
    archive = write_archive(tmp_path / "model.mar")
    assert named(examine_cloud(connection, subject_of(config_of(archive), archive), False)) == {"permission"}
    assert "PERMISSION_DENIED" in try_to_deploy(connection, config_of(archive))


def test_no_quota(cloud: RehearsalCloud, connection: Connection, tmp_path: Path) -> None:
    cloud.fault("quota-exhausted")
    archive = write_archive(tmp_path / "model.mar")
    config = config_of(archive)
    assert named(examine_cloud(connection, subject_of(config, archive), exhausted=True)) == {"quota"}
    assert "quotas are exceeded" in try_to_deploy(connection, config)


def test_python_aiplatform_1158_the_clients_timeout_does_not_help(
    cloud: RehearsalCloud, connection: Connection, tmp_path: Path
) -> None:
    archive = write_archive(tmp_path / "model.mar")
    subject = theirs(archive, client_timeout=700.0)
    assert named(examine(subject, TODAY)) == {"too_slow"}
    assert named(examine(replace(subject, dedicated=True, inference_timeout=900), TODAY)) == set()
    put(connection, theirs__model_DOT_mar=archive)
    serve(connection, upload(connection, "theirs"))
    cloud.fault("endpoint-timeout")
    reply = find_client(connection, "theirs").exchange({"instances": [{"prompt": "x"}]}, 700)
    assert reply.status == 504


def test_python_aiplatform_190_the_pictures_are_too_large(
    cloud: RehearsalCloud, connection: Connection, tmp_path: Path
) -> None:
    settings = {
        "defaults": {"width": 1024, "height": 1024, "output_format": "png"},
        "limits": {"max_instances": 1},
    }
    archive = write_archive(tmp_path / "model.mar", settings=settings)
    shared = config_of(archive, dedicated=False)
    assert named(examine(subject_of(shared, archive), TODAY)) == {"response_too_large"}
    assert named(examine(subject_of(config_of(archive), archive), TODAY)) == set()
    small = write_archive(tmp_path / "small.mar")  # the stand-in draws 64x64 only
    deploy(connection, config_of(small, dedicated=False), read_archive(small), Silent())
    cloud.painters[0].padding = 2_000_000
    reply = find_client(connection, "marquee").exchange({"instances": [{"prompt": "x"}]}, 60)
    assert "Response size too large" in reply.text


def test_serve_3301_a_token_is_asked_for(
    cloud: RehearsalCloud, connection: Connection, tmp_path: Path
) -> None:
    archive = write_archive(tmp_path / "model.mar")
    properties = tmp_path / "config.properties"
    properties.write_text(
        "inference_address=http://0.0.0.0:8080\ndisable_token_authorization=True\n"
        "allowed_urls=none\nworkflow_store=/dev/null\n"
    )
    findings = examine(subject_of(config_of(archive), archive, properties), TODAY)
    assert named(findings) == {"token_authorization"}
    cloud.painter = {"healthy": False}
    assert "InvalidKeyException" in try_to_deploy(connection, config_of(archive))
    (mend,) = [finding.fix for finding in findings if finding.fix]
    mend()
    assert named(examine(subject_of(config_of(archive), archive, properties), TODAY)) == set()


def test_an_image_past_its_end_date(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "model.mar")
    subject = subject_of(config_of(archive), archive)
    assert named(examine(subject, date(2027, 1, 20))) == {"image_ended"}
    soon = [finding.failure for finding in examine(subject, date(2027, 1, 1))]
    assert "image_ending" in soon
    with (
        rehearsal_cloud(tmp_path / "later", datetime(2027, 1, 20, tzinfo=UTC)) as cloud,
        connect(DeployConfig(), cloud.running, {}) as connection,
    ):
        put(connection, theirs__model_DOT_mar=archive)
        with pytest.raises(GoogleAPICallError, match="no longer available since 2027-01-14"):
            upload(connection, "theirs")


def test_a_p100_with_a_torch_that_dropped_it(connection: Connection, tmp_path: Path) -> None:
    words = b"CUDA error: no kernel image is available for execution on the device"
    archive = write_archive(tmp_path / "model.mar", extra={"broken.txt": words})
    own = "us-central1-docker.pkg.dev/me/images/marquee"

    def subject(tag: str, profile: str = "p100") -> Subject:
        values = {"container": "marquee", "image": f"{own}:{tag}", "archive": str(archive)}
        return subject_of(load_config(None, values, profile, TODAY), archive)

    assert named(examine(subject("0.1-cu128"), TODAY)) == {"torch_dropped_gpu"}
    assert named(examine(subject("l4"), TODAY)) == {"torch_dropped_gpu"}
    assert named(examine(subject("cu126"), TODAY)) == set()
    assert named(examine(subject("0.1-cu128", "l4"), TODAY)) == set()
    assert "torch_unknown" in {finding.failure for finding in examine(subject("latest"), TODAY)}
    config = config_of(archive, container="marquee", image=f"{own}:0.1-cu128")
    assert "no kernel image" in try_to_deploy(connection, config)


def test_a_bucket_in_another_region(connection: Connection, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "model.mar")
    connection.storage.create_bucket("far-away", location="europe-west1")
    config = config_of(archive, bucket="far-away")
    assert named(examine_cloud(connection, subject_of(config, archive), False)) == {"bucket_region"}


def test_an_archive_that_was_changed_after_it_was_built(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "model.mar", b"the right weights")
    archive.write_bytes(archive.read_bytes().replace(b"the right weights", b"the wrong weights"))
    assert named(examine(subject_of(config_of(archive), archive), TODAY)) == {"archive_damaged"}
