"""Failures in the local cloud: the message says why, and a deploy takes back what it made."""

from __future__ import annotations

from pathlib import Path

import pytest
from rehearsal_cloud import Configure, RehearsalCloud, write_archive

from pipeline.deploy.archive_file import ArchiveFile, read_archive
from pipeline.deploy.config import DeployConfig
from pipeline.deploy.connection import Connection
from pipeline.deploy.flow import deploy
from pipeline.deploy.smoke import find_client
from pipeline.deploy.survey import survey
from pipeline.deploy.verify import verify
from pipeline.errors import MarqueeError
from pipeline.progress import Silent

QUIET = Silent()
RAISED = {"code": 503, "type": "InternalServerException", "message": "Prediction failed"}


def assert_nothing_runs(connection: Connection, config: DeployConfig) -> None:
    found = survey(connection, config)
    assert (found.versions, found.endpoint) == ((), None)


def test_a_container_that_never_becomes_ready_tells_its_log(
    connection: Connection, configure: Configure, tmp_path: Path
) -> None:
    broken = read_archive(write_archive(tmp_path / "broken.mar", extra={"broken.txt": b""}))
    with pytest.raises(MarqueeError, match="never became ready") as raised:
        deploy(connection, configure(), broken, QUIET)
    assert "No module named 'diffusers'" in str(raised.value)
    assert "taken back: endpoint marquee, model marquee" in str(raised.value)
    assert_nothing_runs(connection, configure())


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("never-ready", "never became ready"),
        ("quota-exhausted", "quotas are exceeded"),
        ("permission-denied,target=DeployModel/*", "Permission"),
        ("operation-fails,target=DeployModel/*,seconds=1", "Internal error"),
    ],
)
def test_a_fault_while_deploying_is_told_and_taken_back(
    cloud: RehearsalCloud,
    connection: Connection,
    configure: Configure,
    archive: ArchiveFile,
    fault: str,
    says: str,
) -> None:
    cloud.fault(fault)
    with pytest.raises(MarqueeError, match=says):
        deploy(connection, configure(), archive, QUIET)
    cloud.book.clear()
    assert_nothing_runs(connection, configure())
    assert deploy(connection, configure(), archive, QUIET).uploaded.sent_bytes == 0


def test_a_service_that_is_away_for_a_moment_undoes_nothing(
    cloud: RehearsalCloud, connection: Connection, configure: Configure, archive: ArchiveFile
) -> None:
    cloud.fault("unavailable,target=UpdateEndpoint/*")
    with pytest.raises(MarqueeError, match="Google did not answer") as raised:
        deploy(connection, configure(), archive, QUIET)
    assert raised.value.cure == "run it again: it continues where it stopped"
    (deployed,) = survey(connection, configure()).deployed
    assert deploy(connection, configure(), archive, QUIET).deployed_model_id == deployed.id


@pytest.mark.parametrize(
    ("painter", "says"),
    [
        ({"swapped": "f" * 64}, "does not serve what was uploaded"),
        ({"flat": True}, "one flat colour"),
        ({"refusal": (500, {"code": 500, "message": "Prediction failed"})}, "Prediction failed"),
        ({"refusal": (503, RAISED)}, "Prediction failed"),
    ],
)
def test_a_wrong_first_picture_undoes_the_deployment(
    cloud: RehearsalCloud,
    connection: Connection,
    configure: Configure,
    archive: ArchiveFile,
    painter,
    says: str,
) -> None:
    cloud.painter = painter
    with pytest.raises(MarqueeError, match=says):
        deploy(connection, configure(), archive, QUIET)
    assert_nothing_runs(connection, configure())


def test_a_wrong_picture_of_a_new_version_leaves_the_old_one_in_service(
    cloud: RehearsalCloud,
    connection: Connection,
    configure: Configure,
    archive: ArchiveFile,
    other_archive: ArchiveFile,
) -> None:
    first = deploy(connection, configure(), archive, QUIET)
    cloud.painter = {"flat": True}
    with pytest.raises(MarqueeError, match="version 2 of model marquee"):
        deploy(connection, configure(), other_archive, QUIET)
    found = survey(connection, configure())
    assert [version.version_id for version in found.versions] == ["1"]
    assert found.traffic == {first.deployed_model_id: 100}


def test_a_proved_model_stays_when_a_later_smoke_test_fails(
    cloud: RehearsalCloud, connection: Connection, configure: Configure, archive: ArchiveFile
) -> None:
    first = deploy(connection, configure(), archive, QUIET)
    cloud.painters[0].refusal = (500, {"message": "out of memory"})
    with pytest.raises(MarqueeError, match="out of memory"):
        deploy(connection, configure(), archive, QUIET)
    assert survey(connection, configure()).traffic == {first.deployed_model_id: 100}


def test_an_upload_that_breaks_goes_on_by_itself(
    cloud: RehearsalCloud, connection: Connection, configure: Configure, tmp_path: Path
) -> None:
    large = read_archive(write_archive(tmp_path / "large.mar", bytes(20_000_000)))
    cloud.fault("upload-cut,count=2,after_bytes=3000000")
    made = deploy(connection, configure(), large, QUIET)
    assert made.uploaded.sent_bytes == large.size
    assert not cloud.book.all()


def test_other_bytes_under_the_archives_name_are_not_trusted(
    connection: Connection, configure: Configure, archive: ArchiveFile
) -> None:
    made = deploy(connection, configure(), archive, QUIET)
    bucket = connection.storage.bucket(configure().bucket_name)
    name = made.uploaded.artifact_uri.removeprefix(f"gs://{bucket.name}/") + "/model.mar"
    bucket.blob(name).upload_from_string(b"something else")
    with pytest.raises(MarqueeError, match="holds other bytes"):
        deploy(connection, configure(), archive, QUIET)


def test_denied_storage_is_named_with_its_permission(
    cloud: RehearsalCloud, connection: Connection, configure: Configure, archive: ArchiveFile
) -> None:
    cloud.fault("storage-permission-denied")
    with pytest.raises(MarqueeError, match=r"PERMISSION_DENIED|403"):
        deploy(connection, configure(), archive, QUIET)


def test_a_model_scaled_to_zero_is_asked_until_it_is_up(
    cloud: RehearsalCloud, connection: Connection, configure: Configure, archive: ArchiveFile
) -> None:
    deploy(connection, configure(), archive, QUIET)
    cloud.fault("scaled-to-zero,seconds=2")
    painter = cloud.painters[0]
    painter.instances.clear()
    (picture,) = find_client(connection, "marquee").predict(["a red circle"])
    assert picture.seed == painter.instances[0]["seed"]
    assert len(painter.instances) == 1


def test_verify_fails_loudly_on_swapped_weights(
    cloud: RehearsalCloud,
    connection: Connection,
    configure: Configure,
    archive: ArchiveFile,
    other_archive: ArchiveFile,
) -> None:
    deploy(connection, configure(), archive, QUIET)
    assert verify(connection, configure(), archive)[0].loaded_digest == archive.weights_digest
    with pytest.raises(MarqueeError, match=r"but .*fine-tune.mar holds"):
        verify(connection, configure(), other_archive)
    cloud.painters[0].swapped = other_archive.weights_digest
    with pytest.raises(MarqueeError, match="was registered with"):
        verify(connection, configure(), other_archive)
