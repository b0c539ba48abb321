"""What `up --secure` needs: a CA, a certificate and a password for each who connects, and their files of settings.

All is made when it is first asked for, in the data folder, readable by its owner alone, and gone with it.
"""

from __future__ import annotations

import datetime
import ipaddress
import secrets
from pathlib import Path
from typing import Any

from schemas.access import principals
from stack.errors import StackError
from stack.ports import HOST

__all__ = ["ADMIN", "Secure", "write_private"]

ADMIN = "admin"
_SERVERS = ("broker", "registry", "valkey")
_VALID = datetime.timedelta(days=30)


class Secure:
    """
    Attributes:
      folder: of all of it.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    def make(self) -> None:
        """Whatever is not there yet. Raises: StackError."""
        if self.ca.exists():
            return
        try:
            import cryptography  # noqa: F401
        except ImportError as error:
            raise StackError("--secure makes certificates with the package cryptography: pip install it") from error
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in (*_SERVERS, ADMIN, *principals()):
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
            write_private(self.folder / name / "password", secrets.token_urlsafe(24))
        authority = _Authority()
        for name in (*_SERVERS, ADMIN, *principals()):
            authority.sign(self.folder / name, name)
        write_private(self.folder / "ca.key", authority.key)
        write_private(self.ca, authority.certificate)  # the last, as it says that the others are there

    def renew(self, name: str, valid: datetime.timedelta = _VALID) -> None:
        """Another key and certificate for one of them."""
        _Authority((self.folder / "ca.key").read_text()).sign(self.folder / name, name, valid)

    def password(self, principal: str) -> str:
        return (self.folder / principal / "password").read_text()

    def certificate(self, name: str) -> Path:
        return self.folder / name / "tls.crt"

    def key(self, name: str) -> Path:
        return self.folder / name / "tls.key"

    def kafka(self, principal: str, mutual: bool = False) -> Path:
        """The file for --kafka_config; `mutual`: by certificate instead of password, on the other listener."""
        lines: dict[str, Any] = {"ssl.ca.location": self.ca}
        if mutual:
            lines |= {"security.protocol": "SSL", "ssl.certificate.location": self.certificate(principal)}
            lines["ssl.key.location"] = self.key(principal)
        else:
            lines |= {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": principal}
            lines["sasl.password"] = self._reference(principal)
        return self._settings(principal, "kafka-tls" if mutual else "kafka", lines)

    def registry(self, principal: str) -> Path:
        """The file for --registry_config."""
        lines = {"ssl.ca.location": self.ca, "basic.auth.user.info": f"{principal}:{self._reference(principal)}"}
        return self._settings(principal, "registry", lines)

    def store(self, principal: str) -> Path:
        """The file for --store_config."""
        lines = {"ssl_ca_certs": self.ca, "username": principal, "password": self._reference(principal)}
        return self._settings(principal, "store", lines)

    def flags(self, principal: str, *systems: str) -> list[str]:
        """Of a program that is this principal: --kafka_config, --registry_config, --store_config, those named."""
        files = {"kafka": self.kafka, "registry": self.registry, "store": self.store}
        return [f"--{system}_config={files[system](principal)}" for system in systems]

    def _reference(self, principal: str) -> str:
        return f"${{file:{self.folder / principal / 'password'}}}"

    def _settings(self, principal: str, name: str, lines: dict[str, Any]) -> Path:
        path = self.folder / principal / f"{name}.properties"
        write_private(path, "".join(f"{key}={value}\n" for key, value in lines.items()))
        return path


class _Authority:
    def __init__(self, key: str | None = None) -> None:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        made = (
            serialization.load_pem_private_key(key.encode(), None) if key else ec.generate_private_key(ec.SECP256R1())
        )
        self._key: Any = made
        self._name = _name("StreamForge local CA")
        self._certificate = self._sign(self._name, self._key.public_key(), is_ca=True)

    @property
    def certificate(self) -> str:
        return _pem(self._certificate)

    @property
    def key(self) -> str:
        return _private(self._key)

    def sign(self, folder: Path, name: str, valid: datetime.timedelta = _VALID) -> None:
        """A key and its certificate, for client and server both."""
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        private = _private(key)
        chain = _pem(self._sign(_name(name), key.public_key(), is_ca=False, valid=valid))
        write_private(folder / "tls.key", private)
        write_private(folder / "tls.crt", chain)
        write_private(folder / "both.pem", private + chain)

    def _sign(self, subject: Any, public_key: Any, *, is_ca: bool, valid: datetime.timedelta = _VALID) -> Any:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + valid)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if not is_ca:
            here = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(HOST))]
            made = made.add_extension(x509.SubjectAlternativeName(here), critical=False)
        return made.sign(self._key, hashes.SHA256())


def _name(common: str) -> Any:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _private(key: Any) -> str:
    """PKCS#8, the one form that Java reads."""
    from cryptography.hazmat.primitives import serialization

    pkcs8, open_ = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return str(key.private_bytes(serialization.Encoding.PEM, pkcs8, open_).decode())


def _pem(certificate: Any) -> str:
    from cryptography.hazmat.primitives import serialization

    return str(certificate.public_bytes(serialization.Encoding.PEM).decode())


def write_private(path: Path, text: str) -> None:
    """For its owner alone, from the first moment on."""
    new = path.with_name(f"{path.name}.new")
    new.touch(mode=0o600)
    new.write_text(text)
    new.rename(path)
