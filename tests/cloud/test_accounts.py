"""Tokens and projects, as Google's own credential and project clients ask for them."""

from __future__ import annotations

import base64
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import google.auth.transport.requests
import pytest
import requests
from google.auth import crypt, jwt
from google.oauth2 import service_account
from local_storage import account_pem, bearer, tokens

from pipeline.cloud.accounts import JWT_BEARER, AccountsServer
from pipeline.cloud.certificates import ensure_certificate
from pipeline.cloud.credentials import account_key, write_credentials
from pipeline.cloud.gate import Refused
from pipeline.cloud.projects import project_number
from pipeline.cloud.state import PROJECT, PROJECT_NUMBER
from pipeline.cloud.tokens import ACCOUNT, LIFETIME, SKEW, Keys, Tokens
from pipeline.errors import MarqueeError


@pytest.fixture(scope="module")
def accounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AccountsServer]:
    certificate = ensure_certificate(tmp_path_factory.mktemp("accounts"))
    server = AccountsServer(Keys(certificate, tokens()))
    yield server
    server.stop()


def test_credentials_file_gets_a_token_from_loopback(accounts: AccountsServer, tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    write_credentials(path, f"{accounts.url}/token", account_pem())
    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
    credentials = service_account.Credentials.from_service_account_file(str(path), scopes=scopes)
    with requests.Session() as session:
        credentials.refresh(google.auth.transport.requests.Request(session=session))

    tokens().check([f"Bearer {credentials.token}"])
    assert credentials.project_id == PROJECT
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_key_is_kept_when_the_port_changes(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    write_credentials(path, "http://127.0.0.1:1/token", account_key(path))
    first = path.read_text()
    write_credentials(path, "http://127.0.0.1:2/token", account_key(path))
    assert path.read_text() == first.replace("127.0.0.1:1/", "127.0.0.1:2/")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"private_key": "x"}', '{"private_key": null}'])
def test_a_broken_key_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "credentials.json"
    path.write_text(content)
    with pytest.raises(MarqueeError, match="is no key file of a local cloud"):
        account_key(path)


def ask(accounts: AccountsServer, assertion: str, **changed: str) -> requests.Response:
    form = {"grant_type": JWT_BEARER, "assertion": assertion, **changed}
    return requests.post(f"{accounts.url}/token", data=form, timeout=60)


def test_only_the_account_s_own_assertion_gets_a_token(accounts: AccountsServer) -> None:
    stranger = account_key(Path("/there/is/no/such/file"))
    now = int(time.time())
    refused = [
        "",
        "a.b.c",
        signed(stranger),
        signed(account_pem(), iss="me@example.com"),
        signed(account_pem(), sub="you@example.com"),
        signed(account_pem(), iat=now - 7200, exp=now - 3600),
        signed(account_pem(), exp=now + 86_400),
        signed(account_pem(), exp="nan"),
        signed(account_pem(), aud="https://aiplatform.googleapis.com/"),
        unsigned(),
    ]
    for assertion in refused:
        answer = ask(accounts, assertion)
        assert (answer.status_code, "access_token" in answer.text) == (400, False), assertion
    assert ask(accounts, signed(account_pem()), grant_type="password").status_code == 400
    assert requests.post(f"{accounts.url}/token", json={}, timeout=60).status_code == 400
    assert requests.get(f"{accounts.url}/token", timeout=60).status_code == 401
    assert ask(accounts, signed(account_pem())).status_code == 200


def test_tokens_are_refused_when_they_are_not_the_account_s_or_no_longer_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good, other = tokens().issue(), Tokens(account_key(Path("/there/is/no/such/file"))).issue()
    own, service = account_pem(), "https://us-central1-aiplatform.googleapis.com/"
    tokens().check([f"Bearer {good}"])
    tokens().check([f"bearer {signed(own, aud=service)}"])
    tokens().check([f"Bearer {signed(own, aud=None)}"])
    later = good.split(".")
    later[1] = str(int(later[1]) + 3600)
    for wrong in (
        other,
        good[:-1],
        f"{good}0",
        ".".join(later),
        good.upper(),
        "\u0661",
        signed(own),  # an assertion is for the token endpoint alone
        signed(own, aud="https://bigquery.googleapis.com/"),
        signed(own, aud=None, scope=""),
    ):
        with pytest.raises(Refused, match="invalid authentication credentials") as refusal:
            tokens().check([f"Bearer {wrong}"])
        assert wrong not in refusal.value.message
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + LIFETIME + SKEW + 1)
    for expired in (good, signed(own, aud=service, late=LIFETIME + SKEW + 1)):
        with pytest.raises(Refused) as refusal:
            tokens().check([f"Bearer {expired}"])
        assert refusal.value.reason == "ACCESS_TOKEN_EXPIRED"


def test_a_token_outlives_the_cloud_that_gave_it() -> None:
    again = Tokens(account_pem())
    again.check([f"Bearer {tokens().issue()}"])


def signed(key: str, late: int = 0, **claims: object) -> str:
    """A JWT as google-auth makes an assertion, with some claims changed; None leaves one out."""
    now = int(time.time()) - late
    payload = {
        "iat": now,
        "exp": now + LIFETIME,
        "iss": ACCOUNT,
        "aud": "https://oauth2.googleapis.com/token",
        "scope": "https://www.googleapis.com/auth/cloud-platform",
        **claims,
    }
    given = {name: value for name, value in payload.items() if value is not None}
    return str(jwt.encode(crypt.RSASigner.from_string(key), given).decode())


def unsigned() -> str:
    _, body, _ = signed(account_pem()).split(".")
    none = base64.urlsafe_b64encode(b'{"alg": "none"}').rstrip(b"=").decode()
    return f"{none}.{body}."


def test_projects_have_numbers(accounts: AccountsServer) -> None:
    ours = requests.get(f"{accounts.url}/v1/projects/{PROJECT_NUMBER}", auth=bearer, timeout=60).json()
    other = requests.get(f"{accounts.url}/v3/projects/my-project", auth=bearer, timeout=60).json()
    assert (ours["projectId"], ours["projectNumber"]) == (PROJECT, PROJECT_NUMBER)
    assert (other["projectId"], other["projectNumber"]) == ("my-project", project_number("my-project"))
    assert project_number("my-project") == project_number("my-project") != project_number("another")
    assert project_number("12345") == "12345"


def test_services_and_permissions(accounts: AccountsServer) -> None:
    service = f"{accounts.url}/v1/projects/p/services/aiplatform.googleapis.com"
    asked = {"permissions": ["aiplatform.models.upload"]}
    url = f"{accounts.url}/v1/projects/p:testIamPermissions"
    allowed = requests.post(url, json=asked, auth=bearer, timeout=60)
    assert requests.get(service, auth=bearer, timeout=60).json()["state"] == "ENABLED"
    assert allowed.json() == asked


def test_anything_else_is_not_emulated(accounts: AccountsServer) -> None:
    answer = requests.get(f"{accounts.url}/v1/projects/p/serviceAccounts", auth=bearer, timeout=60)
    assert (answer.status_code, answer.json()["error"]["status"]) == (501, "UNIMPLEMENTED")
