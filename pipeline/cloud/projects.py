"""Projects of the local cloud: every name is valid, and each project has a number, as Google's do."""

from __future__ import annotations

import hashlib

from pipeline.cloud.state import PROJECT, PROJECT_NUMBER


def project_number(project: str) -> str:
    """The number of a project: given names keep theirs from run to run."""
    if project.isdigit():
        return project
    if project == PROJECT:
        return PROJECT_NUMBER
    return str(10**11 + int(hashlib.sha256(project.encode()).hexdigest(), 16) % (9 * 10**11))
