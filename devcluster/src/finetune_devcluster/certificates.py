"""The cluster's certificate authority and what it signs.

Names of users and groups are those that Kubernetes itself expects:
https://kubernetes.io/docs/setup/best-practices/certificates/
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from finetune_devcluster.errors import DevclusterError
from finetune_devcluster.files import write_atomically

_LIFETIME = timedelta(days=365)
# A virtual machine's clock may be set back a little after its host wakes up.
_BACKDATED = timedelta(minutes=5)


@dataclass(frozen=True)
class KeyPair:
    """The PEM files of a certificate and its private key."""

    certificate: Path
    key: Path

    @classmethod
    def named(cls, folder: Path, name: str) -> "KeyPair":
        return cls(folder / f"{name}.crt", folder / f"{name}.key")


class Authority:
    """Signs certificates; keeps its own key pair in the folder where it puts them, and makes it once."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.files = KeyPair.named(folder, name)
        if not self.files.certificate.exists():
            self._create()
        self._certificate = x509.load_pem_x509_certificate(self.files.certificate.read_bytes())
        key = serialization.load_pem_private_key(self.files.key.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise DevclusterError(
                f"{self.files.key}: found a {type(key).__name__}, expected an elliptic curve key; "
                "`devcluster down` removes the folder, and the next `up` makes a new one"
            )
        self._key = key

    def client(self, name: str, user: str, group: str | None = None) -> KeyPair:
        """A key pair that logs in as `user`, a member of `group`."""
        return self._issue(name, _subject(user, group), ExtendedKeyUsageOID.CLIENT_AUTH, [])

    def server(self, name: str, user: str, hosts: Sequence[str], group: str | None = None) -> KeyPair:
        """A key pair that serves as each of `hosts`: DNS names or IPv4 addresses."""
        return self._issue(name, _subject(user, group), ExtendedKeyUsageOID.SERVER_AUTH, hosts)

    def _create(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(f"finetune-devcluster-{self.files.certificate.stem}")
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = _builder(subject, subject, key).add_extension(usage, critical=True)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(identifier, critical=False)
        # The certificate goes last: where it stands, the key stands too.
        write_private_key(self.files.key, key)
        write_atomically(self.files.certificate, _pem(builder.sign(key, hashes.SHA256())))

    def _issue(self, name: str, subject: x509.Name, usage: x509.ObjectIdentifier, hosts: Sequence[str]) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject, self._certificate.subject, key)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        # Python 3.13 verifies strictly by default and refuses certificates without it.
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(issuer, critical=False)
        if hosts:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        files = KeyPair.named(self.folder, name)
        write_private_key(files.key, key)
        write_atomically(files.certificate, _pem(builder.sign(self._key, hashes.SHA256())))
        return files


def ensure_private_key(file: Path) -> Path:
    """Make the key that signs service account tokens, once: tokens outlive a restart of the cluster."""
    if not file.exists():
        write_private_key(file, ec.generate_private_key(ec.SECP256R1()))
    return file


def write_private_key(file: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    write_atomically(file, pem, 0o600)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + _LIFETIME)
    )


def _subject(user: str, group: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(IPv4Address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
