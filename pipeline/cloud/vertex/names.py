"""Resource names. As at Google, answers have the project's number, whatever the caller wrote."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from pipeline.cloud.projects import project_number
from pipeline.cloud.vertex.failures import invalid

_LOCATION = re.compile(r"projects/(?P<project>[^/]+)/locations/(?P<region>[^/]+)")
_MODEL = re.compile(
    r"(?P<location>projects/[^/]+/locations/[^/]+)/models/(?P<id>[^/@]+)(?:@(?P<version>[^/]+))?"
)
_ENDPOINT = re.compile(r"(?P<location>projects/[^/]+/locations/[^/]+)/endpoints/(?P<id>[^/@]+)")


@dataclass(frozen=True)
class ModelName:
    """``version`` is a version id, an alias, or empty for the default version."""

    resource: str
    version: str

    @property
    def id(self) -> str:
        return self.resource.rpartition("/")[2]

    def at(self, version: str) -> str:
        return f"{self.resource}@{version}"


def read_location(name: str) -> str:
    """``projects/NUMBER/locations/REGION`` for a location's name; raises INVALID_ARGUMENT."""
    match = _LOCATION.fullmatch(name)
    if match is None:
        raise invalid(f"Invalid resource name: {name!r} is not projects/PROJECT/locations/LOCATION.")
    return f"projects/{project_number(match['project'])}/locations/{match['region']}"


def read_model(name: str) -> ModelName:
    match = _MODEL.fullmatch(name)
    if match is None:
        raise invalid(
            f"Invalid resource name: {name!r} is not projects/PROJECT/locations/LOCATION/models/MODEL."
        )
    return ModelName(f"{read_location(match['location'])}/models/{match['id']}", match["version"] or "")


def read_endpoint(name: str) -> str:
    match = _ENDPOINT.fullmatch(name)
    if match is None:
        raise invalid(
            f"Invalid resource name: {name!r} is not projects/PROJECT/locations/LOCATION/endpoints/ENDPOINT."
        )
    return f"{read_location(match['location'])}/endpoints/{match['id']}"


def location_of(resource: str) -> str:
    return "/".join(resource.split("/")[:4])


def region_of(resource: str) -> str:
    return resource.split("/")[3]


def new_number() -> str:
    """A fresh id as Google assigns them: nineteen digits."""
    return str(10**18 + secrets.randbelow(8 * 10**18))
