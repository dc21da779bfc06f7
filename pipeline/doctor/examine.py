"""All checks in order, and the rehearsal that serves the archive here."""

from __future__ import annotations

import tempfile
from datetime import date
from pathlib import Path

from pipeline.deploy.connection import Connection
from pipeline.doctor.content import check_archive
from pipeline.doctor.findings import Finding, fine, name_it
from pipeline.doctor.machine import check_machine
from pipeline.doctor.management import check_management
from pipeline.doctor.offline import check_hardware, check_image, check_payload, check_place, check_properties
from pipeline.doctor.online import check_cloud
from pipeline.doctor.subject import Subject
from pipeline.errors import MarqueeError


def examine(subject: Subject, today: date) -> list[Finding]:
    """What can be known without any cloud."""
    return [
        *check_archive(subject),
        *check_place(subject),
        *check_image(subject, today),
        *check_hardware(subject, today),
        *check_payload(subject),
        *check_properties(subject),
        *check_management(subject),
        *check_machine(Path(tempfile.gettempdir())),
    ]


def examine_cloud(connection: Connection, subject: Subject, exhausted: bool) -> list[Finding]:
    """What only the cloud can tell; ``exhausted``: the local cloud is set to have no quota."""
    from pipeline.rules import table

    accelerator = table().accelerators.get(subject.accelerator or "")
    quotas = {accelerator.quota: 0} if exhausted and accelerator else {}
    return check_cloud(connection, subject, quotas)


def rehearse(subject: Subject) -> list[Finding]:
    """Start the archive in real TorchServe on this machine, as a replica would, and ask for a picture."""
    from pipeline.client import Client
    from pipeline.serving.settings import ServeOptions
    from pipeline.serving.torchserve import start

    if subject.archive is None:
        return []
    try:
        server = start(subject.archive, ServeOptions())
        try:
            with Client(server.url) as client:
                client.predict([{"prompt": "a red circle", "seed": 1}])
        finally:
            server.stop()
    except MarqueeError as error:
        return [name_it("rehearsal", "does_not_serve", why=error)]
    return [fine("rehearsal", "the archive drew a picture in real TorchServe here")]
