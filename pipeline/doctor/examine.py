"""All checks in order, and the rehearsal that serves the archive here."""

from __future__ import annotations

import tempfile
from datetime import date
from pathlib import Path

from pipeline.archive.verification import RefusedArchive
from pipeline.containers.fit import target_of
from pipeline.containers.twin import find_twin, rehearsed_in
from pipeline.deploy.connection import Connection
from pipeline.doctor.content import check_archive
from pipeline.doctor.findings import Finding, known_failure, passed
from pipeline.doctor.machine import check_machine
from pipeline.doctor.management import check_management
from pipeline.doctor.offline import check_hardware, check_image, check_payload, check_place, check_properties
from pipeline.doctor.online import check_cloud
from pipeline.doctor.subject import Subject
from pipeline.errors import MarqueeError


def examine(subject: Subject, today: date) -> list[Finding]:
    """The checks that need no cloud."""
    return [
        *check_archive(subject),
        *check_place(subject),
        *check_image(subject, today),
        *check_hardware(subject, today),
        *check_payload(subject),
        *check_properties(subject),
        *check_management(subject),
        *check_machine(Path(tempfile.gettempdir())),
        passed(
            "rehearsal", f"a local deploy is {rehearsed_in(target_of(subject.image_uri, subject.container))}"
        ),
    ]


def examine_cloud(connection: Connection, subject: Subject, exhausted: bool) -> list[Finding]:
    """The checks that ask the cloud; ``exhausted``: the local cloud is set to have no quota."""
    from pipeline.rules import table

    accelerator = table().accelerators.get(subject.accelerator or "")
    quotas = {accelerator.quota: 0} if exhausted and accelerator else {}
    return check_cloud(connection, subject, quotas)


def rehearse(subject: Subject) -> list[Finding]:
    """Start the archive in real TorchServe on this machine, as a replica would be, and ask for a picture."""
    from pipeline.client import Client
    from pipeline.serving.readiness import quick_instance
    from pipeline.serving.settings import ServeOptions
    from pipeline.serving.torchserve import start

    if subject.archive is None:
        return []
    try:
        twin = find_twin(target_of(subject.image_uri, subject.container))
        python, environment = (twin.python, twin.replica_environment()) if twin else (None, {})
        server = start(subject.archive, ServeOptions(python=python, environment=environment, foreign=True))
        try:
            with Client(server.url) as client:
                client.predict([quick_instance(client.describe())])
        finally:
            server.stop()
    except RefusedArchive as error:
        return [known_failure("rehearsal", "archive_damaged", path=subject.archive, why=error)]
    except MarqueeError as error:
        return [known_failure("rehearsal", "does_not_serve", why=error)]
    where = "in the twin" if twin else "here"
    return [passed("rehearsal", f"the archive drew a picture in real TorchServe {where}")]
