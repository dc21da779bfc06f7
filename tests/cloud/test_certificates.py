from __future__ import annotations

import socket
import ssl
import stat
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.cloud import certificates
from pipeline.cloud.certificates import Certificate, ensure_certificate
from pipeline.cloud.state import PROJECT_NUMBER


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return ensure_certificate(tmp_path_factory.mktemp("certificates"))


def handshake(certificate: Certificate, name: str, trusted: ssl.SSLContext) -> None:
    """A TLS handshake with the server certificate; raises what the client raises."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            certificate.server_context().wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    server = threading.Thread(target=serve)
    server.start()
    try:
        trusted.wrap_socket(ours, server_hostname=name).close()
    finally:
        ours.close()
        server.join()


@pytest.mark.parametrize(
    "name",
    [
        "localhost",
        "127.0.0.1",
        "storage.googleapis.com",
        "a-bucket.storage.googleapis.com",
        "us-central1-aiplatform.googleapis.com",
        f"42.europe-west4-{PROJECT_NUMBER}.prediction.vertexai.goog",
    ],
)
def test_names_that_are_answered_here_are_vouched_for(certificate: Certificate, name: str) -> None:
    handshake(certificate, name, ssl.create_default_context(cafile=str(certificate.ca_file)))


def test_other_names_are_not(certificate: Certificate) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(certificate, "example.com", ssl.create_default_context(cafile=str(certificate.ca_file)))


def test_nobody_trusts_it_unasked(certificate: Certificate) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="self-signed"):
        handshake(certificate, "localhost", ssl.create_default_context())


def test_the_key_is_its_owners(certificate: Certificate) -> None:
    assert stat.S_IMODE(certificate.key_file.stat().st_mode) == 0o600
    assert "PRIVATE" not in certificate.ca_file.read_text() + certificate.certificate_file.read_text()


def test_kept_while_it_lasts_and_made_anew_before_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "LIFETIME", timedelta(hours=12))
    first = ensure_certificate(tmp_path).ca_file.read_bytes()
    monkeypatch.undo()
    second = ensure_certificate(tmp_path).ca_file.read_bytes()
    assert first != second
    assert ensure_certificate(tmp_path).ca_file.read_bytes() == second
