"""Tokens and projects, as Google's own credential and project clients ask for them."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import google.auth.transport.requests
import pytest
import requests
from google.oauth2 import service_account

from pipeline.cloud.accounts import AccountsServer, write_credentials
from pipeline.cloud.certificates import ensure_certificate
from pipeline.cloud.projects import project_number
from pipeline.cloud.state import PROJECT, PROJECT_NUMBER


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[AccountsServer]:
    server = AccountsServer(ensure_certificate(tmp_path))
    yield server
    server.stop()


def test_credentials_file_gets_a_token_from_loopback(accounts: AccountsServer, tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    write_credentials(path, f"{accounts.url}/token")
    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
    credentials = service_account.Credentials.from_service_account_file(str(path), scopes=scopes)
    with requests.Session() as session:
        credentials.refresh(google.auth.transport.requests.Request(session=session))

    assert (credentials.token, credentials.project_id) == ("marquee-local-cloud", PROJECT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_key_is_kept_when_the_port_changes(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    write_credentials(path, "http://127.0.0.1:1/token")
    first = path.read_text()
    write_credentials(path, "http://127.0.0.1:2/token")
    assert path.read_text() == first.replace("127.0.0.1:1/", "127.0.0.1:2/")


def test_projects_have_numbers(accounts: AccountsServer) -> None:
    ours = requests.get(f"{accounts.url}/v1/projects/{PROJECT_NUMBER}", timeout=60).json()
    other = requests.get(f"{accounts.url}/v3/projects/my-project", timeout=60).json()
    assert (ours["projectId"], ours["projectNumber"]) == (PROJECT, PROJECT_NUMBER)
    assert (other["projectId"], other["projectNumber"]) == ("my-project", project_number("my-project"))
    assert project_number("my-project") == project_number("my-project") != project_number("another")
    assert project_number("12345") == "12345"


def test_services_and_permissions(accounts: AccountsServer) -> None:
    service = f"{accounts.url}/v1/projects/p/services/aiplatform.googleapis.com"
    asked = {"permissions": ["aiplatform.models.upload"]}
    allowed = requests.post(f"{accounts.url}/v1/projects/p:testIamPermissions", json=asked, timeout=60)
    assert requests.get(service, timeout=60).json()["state"] == "ENABLED"
    assert allowed.json() == asked


def test_anything_else_is_not_emulated(accounts: AccountsServer) -> None:
    answer = requests.get(f"{accounts.url}/v1/projects/p/serviceAccounts", timeout=60)
    assert (answer.status_code, answer.json()["error"]["status"]) == (501, "UNIMPLEMENTED")
