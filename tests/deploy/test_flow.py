"""The whole way against the real local cloud, by Google's own clients over gRPC, HTTPS and HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest
from rehearsal_cloud import Configure, RehearsalCloud, write_archive

from pipeline.deploy.archive_file import ArchiveFile, read_archive
from pipeline.deploy.config import DeployConfig
from pipeline.deploy.connection import Connection
from pipeline.deploy.flow import deploy, plan
from pipeline.deploy.smoke import find_client
from pipeline.deploy.status import status
from pipeline.deploy.teardown import leftovers, teardown
from pipeline.deploy.traffic import promote, rollback
from pipeline.deploy.verify import verify
from pipeline.errors import MarqueeError
from pipeline.progress import Silent

QUIET = Silent()


def test_deploy_then_everything_is_there_and_teardown_leaves_nothing(
    connection: Connection, configure: Configure, archive: ArchiveFile
) -> None:
    config = configure(
        labels={"team": "art"}, min_replicas=1, max_replicas=2, autoscaling={"accelerator": 70}
    )
    made = deploy(connection, config, archive, QUIET)
    assert made.uploaded.sent_bytes == archive.size
    assert made.proof.weights_digest == archive.weights_digest
    assert made.traffic == {made.deployed_model_id: 100}
    endpoint = connection.endpoints.get_endpoint(name=connection.endpoint_name("marquee"))
    assert endpoint.dedicated_endpoint_enabled
    (deployed,) = endpoint.deployed_models
    assert endpoint.labels["marquee-in-service"] == deployed.id
    theirs = {key: value for key, value in endpoint.labels.items() if not key.startswith("marquee-")}
    assert theirs == {"team": "art", "managed-by": "marquee"}
    resources = deployed.dedicated_resources
    assert (resources.machine_spec.machine_type, resources.machine_spec.accelerator_type.name) == (
        "n1-standard-8",
        "NVIDIA_TESLA_P100",
    )
    assert [spec.target for spec in resources.autoscaling_metric_specs] == [70]
    torn = teardown(connection, config, QUIET)
    assert leftovers(connection, config) == []
    assert any(thing.startswith("bucket") for thing in torn.removed)
    assert connection.storage.lookup_bucket(config.bucket_name) is None
    assert teardown(connection, config, QUIET).removed == ()


def test_an_unchanged_archive_sends_zero_bytes_and_changes_nothing(
    connection: Connection, configure: Configure, archive: ArchiveFile
) -> None:
    first = deploy(connection, configure(), archive, QUIET)
    again = deploy(connection, configure(), archive, QUIET)
    assert again.uploaded.sent_bytes == 0
    assert (again.version, again.deployed_model_id, again.traffic) == (
        first.version,
        first.deployed_model_id,
        first.traffic,
    )
    assert not plan(connection, configure(), archive).changes


def test_plan_says_what_happens_and_changes_nothing(
    cloud: RehearsalCloud, connection: Connection, configure: Configure, archive: ArchiveFile
) -> None:
    made = plan(connection, configure(max_replicas=3), archive)
    verbs = ["create", "upload", "register", "create", "deploy", "smoke", "traffic"]
    assert [action.verb for action in made.actions] == verbs
    assert made.max_dollars == pytest.approx(3 * made.min_dollars)
    changing = ("Upload", "Create", "Deploy", "Update", "Delete")
    assert not [call for call in cloud.book.calls if call.startswith(changing)]
    assert connection.storage.lookup_bucket(configure().bucket_name) is None


def test_two_fine_tunes_are_two_versions_with_their_own_pictures(
    connection: Connection, configure: Configure, archive: ArchiveFile, other_archive: ArchiveFile
) -> None:
    first = deploy(connection, configure(), archive, QUIET)
    second = deploy(connection, configure(traffic=10), other_archive, QUIET)
    assert (first.version, second.version) == ("1", "2")
    assert second.traffic == {second.deployed_model_id: 10, first.deployed_model_id: 90}
    assert second.proof.picture.data != first.proof.picture.data
    seen = {
        each.deployed_model_id: each.loaded_digest for each in verify(connection, configure(), other_archive)
    }
    assert seen == {
        first.deployed_model_id: archive.weights_digest,
        second.deployed_model_id: other_archive.weights_digest,
    }


def _canary(connection: Connection, config: DeployConfig, *archives: ArchiveFile) -> list[str]:
    return [deploy(connection, config, each, QUIET).deployed_model_id for each in archives]


def test_promote_gives_the_canary_everything(
    connection: Connection, configure: Configure, archive: ArchiveFile, other_archive: ArchiveFile
) -> None:
    first, canary = _canary(connection, configure(traffic=20), archive, other_archive)
    promote(connection, configure(), QUIET)
    now = status(connection, configure())
    assert [(model.id, model.traffic) for model in now.deployed] == [(first, 0), (canary, 100)]
    assert "default" in now.versions[1].aliases


def test_rollback_returns_to_the_model_before(
    connection: Connection, configure: Configure, archive: ArchiveFile, other_archive: ArchiveFile
) -> None:
    first, _ = _canary(connection, configure(), archive, other_archive)
    before = status(connection, configure())
    assert [model.traffic for model in before.deployed] == [0, 100]
    rollback(connection, configure(), QUIET)
    now = status(connection, configure())
    assert [(model.id, model.traffic) for model in now.deployed] == [(first, 100)]
    assert "default" in now.versions[0].aliases
    with pytest.raises(MarqueeError, match="nothing to roll back to"):
        rollback(connection, configure(), QUIET)


def test_other_replica_counts_change_the_deployed_model_in_place(
    connection: Connection, configure: Configure, archive: ArchiveFile
) -> None:
    first = deploy(connection, configure(), archive, QUIET)
    assert "resize" in [
        action.verb for action in plan(connection, configure(max_replicas=4), archive).actions
    ]
    again = deploy(connection, configure(max_replicas=4), archive, QUIET)
    assert again.deployed_model_id == first.deployed_model_id
    assert status(connection, configure()).deployed[0].max_replicas == 4


def test_a_shared_endpoint_is_asked_at_the_regions_address(
    connection: Connection, configure: Configure, archive: ArchiveFile
) -> None:
    config = configure(dedicated=False)
    deploy(connection, config, archive, QUIET)
    pictures = find_client(connection, "marquee").predict(["a red circle"], {"seed": 9})
    assert [picture.seed for picture in pictures] == [9]
    with pytest.raises(MarqueeError, match="exists and is shared"):
        deploy(connection, configure(dedicated=True), archive, QUIET)


def test_what_is_not_marquees_stays(
    connection: Connection, configure: Configure, archive: ArchiveFile
) -> None:
    bucket = connection.storage.create_bucket("somebodys-bucket", location="us-central1")
    bucket.blob("notes.txt").upload_from_string("keep me")
    parent, endpoint = connection.location, {"display_name": "theirs"}
    connection.endpoints.create_endpoint(parent=parent, endpoint=endpoint, endpoint_id="theirs").result()
    config = configure(bucket="somebodys-bucket", endpoint="theirs", dedicated=False)
    deploy(connection, config, archive, QUIET, adopt=True)
    torn = teardown(connection, config, QUIET)
    assert [blob.name for blob in bucket.list_blobs()] == ["notes.txt"]
    assert connection.endpoints.get_endpoint(name=connection.endpoint_name("theirs")).deployed_models == []
    assert [line.split(":")[0] for line in torn.left] == ["endpoint theirs", "bucket somebodys-bucket"]


def test_an_expected_picture_must_come_back(
    connection: Connection, configure: Configure, archive: ArchiveFile, tmp_path: Path
) -> None:
    right = tmp_path / "right.png"
    deploy(connection, configure(), archive, QUIET).proof.picture.save(right)
    smoke = {"seconds": 60, "expected": str(right)}
    deploy(connection, configure(smoke=smoke), archive, QUIET)
    with pytest.raises(MarqueeError, match="differs from"):
        deploy(connection, configure(smoke={**smoke, "seed": 200}), archive, QUIET)


def test_a_model_somebody_else_made_is_not_touched(
    connection: Connection, configure: Configure, archive: ArchiveFile, tmp_path: Path
) -> None:
    deploy(connection, configure(model="mine"), archive, QUIET)
    uri = f"gs://{configure().bucket_name}/marquee/mine/{archive.archive_digest[:16]}"
    container = {"image_uri": configure().image_uri}
    model = {"display_name": "theirs", "artifact_uri": uri, "container_spec": container}
    request = {"parent": connection.location, "model": model, "model_id": "theirs"}
    connection.models.upload_model(request=request).result()
    with pytest.raises(MarqueeError, match="was not made by marquee"):
        deploy(connection, configure(model="theirs"), archive, QUIET)


def test_an_archive_of_somebody_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.mar").write_bytes(b"no zip")
    with pytest.raises(MarqueeError, match="is not a complete archive"):
        read_archive(tmp_path / "x.mar")
    with pytest.raises(MarqueeError, match="does not exist"):
        read_archive(tmp_path / "none.mar")
    assert read_archive(write_archive(tmp_path / "a.mar")).crc32c
