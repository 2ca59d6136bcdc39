"""Certificates made for one test run; none is kept."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class Identity:
    """PEM files of a certificate and its key."""

    cert: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        return context

    def gateway_env(self) -> dict[str, str]:
        """Settings of a gateway that serves with it."""
        return {
            "AIGW_FASTAPI__TLS__ENABLED": "true",
            "AIGW_FASTAPI__TLS__CERT_FILE": str(self.cert),
            "AIGW_FASTAPI__TLS__KEY_FILE": str(self.key),
        }


class Authority:
    """A certificate authority in a folder of the test's own."""

    def __init__(self, folder: Path, name: str = "Test CA") -> None:
        self._folder = folder
        self._count = 0
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.cert = self._write(self._sign(self._name, self._key, is_authority=True), self._key).cert

    def issue(self, *hosts: str, is_expired: bool = False, password: str = "") -> Identity:
        """A certificate for hosts and addresses; one without any can be a client's."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0] if hosts else "client")])
        return self._write(self._sign(name, key, hosts, is_expired=is_expired), key, password)

    def client_context(self) -> ssl.SSLContext:
        """Trusts this authority and nobody else."""
        return ssl.create_default_context(cafile=str(self.cert))

    def _sign(
        self,
        name: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        hosts: tuple[str, ...] = (),
        *,
        is_authority: bool = False,
        is_expired: bool = False,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now - timedelta(days=1) if is_expired else now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if hosts:
            names = [_general_name(host) for host in hosts]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def _write(self, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey, password: str = "") -> Identity:
        self._count += 1
        files = Identity(self._folder / f"{self._count}.crt", self._folder / f"{self._count}.key")
        files.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        hiding = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
        files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hiding))
        return files


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
