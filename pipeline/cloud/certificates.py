"""The local cloud's certificate authority and its one server certificate, kept in the state folder.

Nothing on the machine trusts it; only a program that is pointed at ``ca.pem`` does.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cloud.clock import UTC
from pipeline.cloud.state import PROJECT_NUMBER
from pipeline.rules.table import table

if TYPE_CHECKING:
    import grpc
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

LIFETIME = timedelta(days=365)

# A wildcard covers one label. Dedicated endpoints: ENDPOINT.REGION-PROJECT_NUMBER.prediction.vertexai.goog.
NAMES = (
    "localhost",
    "*.googleapis.com",
    "*.storage.googleapis.com",
    *(f"*.{region}-{PROJECT_NUMBER}.prediction.vertexai.goog" for region in table().regions),
)


@dataclass(frozen=True)
class Certificate:
    """Files in PEM form: the authority's certificate, the server's certificate and its private key (0600)."""

    ca_file: Path
    certificate_file: Path
    key_file: Path

    def server_context(self) -> ssl.SSLContext:
        """For servers that speak HTTP/1.1 over TLS."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate_file, self.key_file)
        context.set_alpn_protocols(["http/1.1"])
        return context

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """For gRPC servers."""
        import grpc

        pair = (self.key_file.read_bytes(), self.certificate_file.read_bytes())
        return grpc.ssl_server_credentials([pair])


def ensure_certificate(folder: Path) -> Certificate:
    """The folder's certificate, made when there is none or it has less than a day to live."""
    certificate = Certificate(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    if not _is_current(certificate):
        _make(certificate)
    return certificate


def _is_current(certificate: Certificate) -> bool:
    from cryptography import x509

    if not all(
        path.exists() for path in (certificate.ca_file, certificate.certificate_file, certificate.key_file)
    ):
        return False
    try:
        server = x509.load_pem_x509_certificate(certificate.certificate_file.read_bytes())
    except ValueError:  # cut short by a full disk
        return False
    return server.not_valid_after_utc > datetime.now(UTC) + timedelta(days=1)


def _make(certificate: Certificate) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    ca_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _sign("marquee local cloud", None, ca_key, ca_key)
    server = _sign("localhost", authority, server_key, ca_key)
    pem = serialization.Encoding.PEM
    certificate.ca_file.write_bytes(authority.public_bytes(pem))
    certificate.certificate_file.write_bytes(server.public_bytes(pem) + authority.public_bytes(pem))
    # The authority's own key is not kept: with it, anybody could forge names for those who trust ca.pem.
    private = server_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_secret(certificate.key_file, private)


def _sign(
    name: str,
    issuer: x509.Certificate | None,
    key: EllipticCurvePrivateKey,
    ca_key: EllipticCurvePrivateKey,
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import NameOID

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
    )
    if issuer is None:
        builder = builder.add_extension(_signing_usage(), critical=True)
    else:
        builder = builder.add_extension(_alternative_names(), critical=False)
    return builder.sign(ca_key, hashes.SHA256())


def _signing_usage() -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_names() -> x509.SubjectAlternativeName:
    from cryptography import x509

    names: list[x509.GeneralName] = [x509.DNSName(name) for name in NAMES]
    return x509.SubjectAlternativeName([*names, x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, never readable by others even for a moment."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
