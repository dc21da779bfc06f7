"""What the smoke test asks for, and which answers and errors of Google's say nothing of the new model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from google.api_core.exceptions import DeadlineExceeded
from google.auth.exceptions import RefreshError, TransportError
from rehearsal_cloud import RehearsalCloud

from pipeline.cli import app
from pipeline.deploy.answers import Unanswered, translating_google_errors
from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.config import load_config
from pipeline.deploy.connection import Connection
from pipeline.deploy.flow import deploy
from pipeline.errors import MarqueeError
from pipeline.progress import Silent

QUIET = Silent()


def limited(archive: ArchiveFile, **limits: int) -> ArchiveFile:
    own = {**archive.settings["marquee"], "limits": limits}
    return dataclasses.replace(archive, settings={**archive.settings, "marquee": own})


def test_no_request_asks_for_more_steps_than_the_archive_allows(
    cloud: RehearsalCloud,
    connection: Connection,
    configure: Callable[..., Any],
    archive: ArchiveFile,
    other_archive: ArchiveFile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MARQUEE_TRAFFIC_SEED", "1")
    deploy(connection, configure(), archive, QUIET)
    deploy(connection, configure(traffic=10), limited(other_archive, max_num_inference_steps=1), QUIET)
    steps = {instance.get("num_inference_steps", 1) for one in cloud.painters for instance in one.instances}
    assert steps == {1}


def test_a_picture_of_another_size_than_the_archive_draws_is_wrong(
    connection: Connection, configure: Callable[..., Any], archive: ArchiveFile
) -> None:
    own = {"defaults": {"width": 512, "height": 512, "output_format": "png"}}
    wanted = dataclasses.replace(archive, settings={"marquee": own})
    with pytest.raises(MarqueeError, match="width 64 came, but width 512"):
        deploy(connection, configure(), wanted, QUIET)


@pytest.mark.parametrize(
    "error",
    [DeadlineExceeded("late"), TransportError("refused"), RefreshError("away", retryable=True)],  # type: ignore[no-untyped-call]
)
def test_an_answer_that_did_not_come_says_nothing(error: Exception) -> None:
    with pytest.raises(Unanswered), translating_google_errors("asking"):
        raise error


@pytest.mark.parametrize("label", ["managed-by", "marquee-in-service", "marquee-archive"])
def test_labels_that_marquee_reads_are_not_the_users(label: str) -> None:
    from datetime import date

    with pytest.raises(MarqueeError, match=f"labels.*{label}"):
        load_config(None, {"labels": {label: "x"}}, "p100", date(2026, 11, 21))


@pytest.mark.parametrize("key", ["min_replicas", "max_replicas"])
def test_a_count_that_no_message_holds_is_refused(key: str) -> None:
    from datetime import date

    with pytest.raises(MarqueeError, match=key):
        load_config(None, {key: 99999999999}, "p100", date(2026, 11, 21))


def test_plan_refuses_the_archive_that_deploy_refuses(
    cloud: RehearsalCloud, archive: ArchiveFile, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rehearsal_cloud import write_archive

    monkeypatch.setenv("MARQUEE_CLOUD", str(cloud.folder.path))
    monkeypatch.chdir(tmp_path)
    handler = {"handler/draw.py": b"import diffusers\n"}
    bare = write_archive(tmp_path / "bare.mar", extra=handler)
    words = ["--profile", "p100", "--archive", str(bare)]
    told = []
    for command in ("plan", "deploy"):
        with pytest.raises(MarqueeError, match="this would fail on Google") as raised:
            app([command, *words], standalone_mode=False)
        told.append(str(raised.value))
    assert told[0] == told[1]
