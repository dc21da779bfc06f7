"""OAuth tokens of the local cloud: issued to the holder of the account's private key, checked on every call.

An access token is its time of expiry, a random number and an HMAC-SHA256 over both, so that it stays good
when the cloud restarts and nothing is stored. The HMAC key is derived from the account's private key, which
lies in ``credentials.json`` (0600). A JWT that the account signed itself is accepted as well: Google's gRPC
clients send one instead of asking for a token (https://google.aip.dev/auth/4111).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pipeline.cloud.certificates import Certificate
from pipeline.cloud.gate import Refused
from pipeline.cloud.hosts import LOOPBACK, service_for
from pipeline.cloud.state import PROJECT

ACCOUNT = f"marquee@{PROJECT}.iam.gserviceaccount.com"
LIFETIME = 3600  # seconds; Google's access tokens and the longest that it takes of a signed JWT
SKEW = 60  # seconds that the clocks of both sides may differ
_LONGEST = 8192  # characters
_TOKEN = re.compile(r"marquee\.(?P<expiry>[0-9]{1,12})\.[0-9a-f]{32}\.(?P<mac>[0-9a-f]{64})")
_SEE = (
    "Expected OAuth 2 access token, login cookie or other valid authentication credential. "
    "See https://developers.google.com/identity/sign-in/web/devconsole-project."
)


class Tokens:
    """Issues and checks the tokens of one account. ``private_key`` is its RSA key in PEM form."""

    def __init__(self, private_key: str) -> None:
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        loaded = load_pem_private_key(private_key.encode(), None)
        if not isinstance(loaded, RSAPrivateKey):
            raise ValueError("the account's key is no RSA key")
        self._public = loaded.public_key()
        self._key = hmac.digest(private_key.encode(), b"access tokens of the local cloud", "sha256")

    def issue(self) -> str:
        """A new access token, good for LIFETIME seconds."""
        text = f"marquee.{int(time.time()) + LIFETIME}.{secrets.token_hex(16)}"
        return f"{text}.{self._mac(text)}"

    def exchange(self, assertion: str) -> str:
        """An access token for a JWT that the account signed (RFC 7523); raises Refused."""
        try:
            claims = self._claims(assertion)
        except Refused as refusal:
            raise Refused("INVALID_ARGUMENT", "Invalid JWT Signature.", "invalid_grant") from refusal
        if not str(claims.get("aud", "")).endswith("/token"):
            raise Refused("INVALID_ARGUMENT", "Invalid JWT: its audience is not the token endpoint.")
        return self.issue()

    def check(self, headers: list[str]) -> None:
        """Raises Refused unless the one Authorization header carries a token that is good now."""
        if not headers:
            raise _missing()
        scheme, _, token = headers[0].strip().partition(" ")
        if len(headers) != 1 or scheme.lower() != "bearer" or len(token) > _LONGEST:
            raise _invalid()
        if token.startswith("eyJ"):
            self._check_self_signed(token)
        else:
            self._check_issued(token.strip())

    def _check_issued(self, token: str) -> None:
        match = _TOKEN.fullmatch(token)
        if match is None:
            raise _invalid()
        expected = self._mac(token.rpartition(".")[0])
        if not hmac.compare_digest(match["mac"], expected):
            raise _invalid()
        if int(match["expiry"]) < time.time():
            raise _expired()

    def _check_self_signed(self, token: str) -> None:
        """Its audience is a service that this cloud stands for; without one, it names scopes."""
        claims = self._claims(token)
        audience = claims.get("aud")
        if audience is None and claims.get("scope"):
            return
        parts = urlsplit(str(audience))
        name = parts.hostname or ""
        if parts.path.endswith("/token") or (name not in LOOPBACK and service_for(name) is None):
            raise _invalid()

    def _claims(self, token: str) -> dict[str, Any]:
        """The claims of a JWT that the account signed with RS256 and that is good now; raises Refused."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding

        try:
            head, body, signature = token.encode("ascii").split(b".")
            signed = head + b"." + body
            self._public.verify(_decode(signature), signed, padding.PKCS1v15(), hashes.SHA256())
            claims = json.loads(_decode(body))
            issued, expiry = float(claims["iat"]), float(claims["exp"])
        except (ValueError, TypeError, LookupError, RecursionError, InvalidSignature):
            raise _invalid() from None
        if claims.get("iss") != ACCOUNT or claims.get("sub", ACCOUNT) != ACCOUNT:
            raise _invalid()
        now = time.time()
        if not issued - SKEW <= now or not expiry - issued <= LIFETIME + SKEW:
            raise _invalid()
        if not now <= expiry + SKEW:
            raise _expired()
        return dict(claims)

    def _mac(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class Keys:
    """The servers' certificate, and the tokens of their callers."""

    certificate: Certificate
    tokens: Tokens


def _decode(part: bytes) -> bytes:
    return base64.b64decode(part + b"=" * (-len(part) % 4), b"-_", validate=True)


def _missing() -> Refused:
    text = f"Request is missing required authentication credential. {_SEE}"
    return Refused("UNAUTHENTICATED", text, "CREDENTIALS_MISSING")


def _invalid() -> Refused:
    text = f"Request had invalid authentication credentials. {_SEE}"
    return Refused("UNAUTHENTICATED", text, "ACCESS_TOKEN_TYPE_UNSUPPORTED")


def _expired() -> Refused:
    text = f"Request had invalid authentication credentials. {_SEE}"
    return Refused("UNAUTHENTICATED", text, "ACCESS_TOKEN_EXPIRED")
