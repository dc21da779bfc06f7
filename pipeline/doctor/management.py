"""Finds an open management API of TorchServe, which runs any Python that a caller sends to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.doctor.findings import Finding, known_failure, passed
from pipeline.doctor.subject import Subject

_CHECK = "management API"
DEFAULT_ADDRESS = "http://127.0.0.1:8081"
_OWN_MACHINE = ("unix:", "http://127.0.0.1:", "https://127.0.0.1:")
_CLOSED = {"allowed_urls": "none", "workflow_store": "/dev/null"}
_SECONDS = 2.0


def check_management(subject: Subject) -> list[Finding]:
    """The user's TorchServe configuration must fetch no archives and keep the API on its machine."""
    path = subject.config_properties
    if path is None:
        return []
    given = _properties(path)
    wanted = {name: value for name, value in _CLOSED.items() if given.get(name) != value}
    address = given.get("management_address", DEFAULT_ADDRESS)
    if not address.startswith(_OWN_MACHINE):
        wanted["management_address"] = DEFAULT_ADDRESS
    if not wanted:
        return [passed(_CHECK, f"{path} keeps the API on its own machine and lets it fetch nothing")]
    why = f"management_address is {address}, allowed_urls is {given.get('allowed_urls', 'every address')}"

    def mend() -> str:
        lines = [line for line in _lines(path) if line.split("=")[0].strip() not in wanted]
        text = "\n".join([*lines, *(f"{name}={value}" for name, value in wanted.items()), ""])
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        return f"set {', '.join(wanted)} in {path}"

    return [replace(known_failure(_CHECK, "open_management", path=path, why=why), fix=mend)]


def check_running_management(address: str = DEFAULT_ADDRESS) -> list[Finding]:
    """Whether a TorchServe on this machine answers anybody's management calls at its usual address."""
    import httpx

    try:
        answer = httpx.get(f"{address}/models", timeout=_SECONDS, trust_env=False)
        answers = answer.status_code == 200 and "models" in answer.json()
    except (httpx.HTTPError, ValueError):
        answers = False
    if not answers:
        return []
    return [known_failure(_CHECK, "management_listens", address=address)]


def _lines(path: Path) -> list[str]:
    """The file's lines; a byte that is not UTF-8 is kept as it is."""
    return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()


def _properties(path: Path) -> dict[str, str]:
    pairs = [line.split("=", 1) for line in _lines(path) if not line.lstrip().startswith("#")]
    return {pair[0].strip(): pair[1].strip() for pair in pairs if len(pair) == 2}
