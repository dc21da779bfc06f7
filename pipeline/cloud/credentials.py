"""The account of a local cloud: its key file, and credentials for programs of marquee's own."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

from google.auth.credentials import Credentials

from pipeline.cloud.certificates import write_secret
from pipeline.cloud.clock import UTC
from pipeline.cloud.state import PROJECT, PROJECT_NUMBER
from pipeline.cloud.tokens import ACCOUNT, LIFETIME, Tokens
from pipeline.errors import MarqueeError


class LocalCredentials(Credentials):
    """Google credentials whose tokens are made here: no call, so no proxy of the environment is asked."""

    def __init__(self, tokens: Tokens) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tokens = tokens

    def refresh(self, request: object) -> None:
        self.token = self._tokens.issue()
        # google-auth compares with naive times in UTC.
        self.expiry = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=LIFETIME)


def local_credentials(path: Path) -> LocalCredentials:
    """Credentials for the local cloud whose key file this is; raises MarqueeError."""
    return LocalCredentials(Tokens(read_key(path)))


def read_key(path: Path) -> str:
    """The private key in an account's key file, in PEM form; raises MarqueeError."""
    try:
        key = str(json.loads(path.read_text())["private_key"])
        Tokens(key)
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise MarqueeError(
            f"{path} is no key file of a local cloud ({type(error).__name__}: {error})",
            cure=f"marquee cloud down, delete {path}, marquee cloud up",
        ) from None
    return key


def account_key(path: Path) -> str:
    """The key that a folder's account has already, or a new one where there is no file."""
    return read_key(path) if path.exists() else _new_key()


def write_credentials(path: Path, token_uri: str, key: str) -> None:
    """A service account's key file, whose tokens are asked of this machine alone."""
    account = {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": "local",
        "private_key": key,
        "client_email": ACCOUNT,
        "client_id": PROJECT_NUMBER,
        "token_uri": token_uri,
        "universe_domain": "googleapis.com",
    }
    write_secret(path, json.dumps(account, indent=1).encode())


def _new_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    return (
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )
