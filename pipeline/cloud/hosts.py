"""The host names that the local cloud answers to: Google's, by service, and those of loopback."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

# Google's names, and the local service that answers for each.
HOSTS = {
    "aiplatform.googleapis.com": "vertex",
    "*-aiplatform.googleapis.com": "vertex",
    "*.prediction.vertexai.goog": "vertex",
    "storage.googleapis.com": "storage",
    "*.storage.googleapis.com": "storage",
    "www.googleapis.com": "storage",
    "oauth2.googleapis.com": "accounts",
    "iamcredentials.googleapis.com": "accounts",
    "cloudresourcemanager.googleapis.com": "accounts",
    "serviceusage.googleapis.com": "accounts",
}
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_AUTHORITY = re.compile(r"(?P<name>\[::1\]|[A-Za-z0-9.-]+)(?::[0-9]{1,5})?")


def service_for(host: str) -> str | None:
    """The local service that answers for this host, or None where the proxy refuses the host."""
    for pattern, service in HOSTS.items():
        if fnmatchcase(host.lower().rstrip("."), pattern):
            return service
    return None


def host_name(authority: str) -> str | None:
    """The name in ``NAME[:PORT]`` in lower case, or None when the text is not of this form."""
    match = _AUTHORITY.fullmatch(authority.strip())
    return match["name"].lower().rstrip(".") if match else None


def answers_to(service: str, authority: str) -> bool:
    """Whether this Host header names a server of ``service``. The port is not compared.

    A page that rebinds its own name to 127.0.0.1 sends that name, which is neither Google's nor loopback's.
    """
    name = host_name(authority)
    return name is not None and (name in LOOPBACK or service_for(name) == service)
