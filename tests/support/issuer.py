"""An OpenID Connect issuer on loopback: real HTTP, real keys that rotate, and failures on demand.

Signs with PyJWT, which is not the library that the broker verifies with.
"""

import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from broker.clock import Clock

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
Answer = tuple[int, dict[str, str], bytes]

_DISCOVERY = "/.well-known/openid-configuration"
_JWKS = "/keys"
_CURVES: dict[str, ec.EllipticCurve] = {
    "ES256": ec.SECP256R1(),
    "ES384": ec.SECP384R1(),
    "ES512": ec.SECP521R1(),
}


def private_key(algorithm: str, *, bits: int = 2048) -> PrivateKey:
    """Generate a key for this signature algorithm."""
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm])
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@dataclass(frozen=True)
class SigningKey:
    """A private key with its key id (`kid`)."""

    kid: str
    algorithm: str
    private: PrivateKey

    def jwk(self) -> dict[str, Any]:
        """Return the public key as a member of a JWK set."""
        made = jwt.get_algorithm_by_name(self.algorithm).to_jwk(
            self.private.public_key(), as_dict=True
        )
        members = {name: value for name, value in made.items() if name != "key_ops"}
        return {**members, "kid": self.kid, "alg": self.algorithm, "use": "sig"}

    def public_pem(self) -> str:
        """Return the public key in PEM."""
        key = self.private.public_key()
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@dataclass
class OidcIssuer:
    """The issuer's state and its responses, which a test may change at any time."""

    clock: Clock
    url: str = ""
    keys: list[SigningKey] = field(default_factory=list)
    extra_jwks: list[dict[str, Any]] = field(default_factory=list)
    discovery: dict[str, Any] = field(default_factory=dict)
    """Members of the discovery document that replace the usual ones."""
    answers: dict[str, Answer] = field(default_factory=dict)
    """Responses that replace the usual ones, by path."""
    requests: list[str] = field(default_factory=list)
    """The paths of all requests so far."""
    authorizations: list[str | None] = field(default_factory=list)
    may_answer: threading.Event = field(default_factory=threading.Event)
    """While this is not set, every request waits."""

    def __post_init__(self) -> None:
        self.may_answer.set()

    @property
    def jwks_url(self) -> str:
        return f"{self.url}{_JWKS}"

    def rotate(self, algorithm: str = "RS256", *, keep: bool = False) -> SigningKey:
        """Start signing with a new key; with `keep`, the older keys stay published."""
        key = SigningKey(
            f"key-{len(self.requests)}-{id(object())}", algorithm, _next_private_key(algorithm)
        )
        self.keys = [*self.keys, key] if keep else [key]
        return key

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return the claims of a JWT that is issued now; a change to None omits a claim."""
        now = int(self.clock.epoch())
        usual = {
            "iss": self.url,
            "aud": "token-broker",
            "sub": "system:serviceaccount:prod:calendar-sync",
            "iat": now,
            "nbf": now,
            "exp": now + 600,
        }
        return {name: value for name, value in (usual | changes).items() if value is not None}

    def mint(
        self,
        *,
        key: SigningKey | None = None,
        headers: dict[str, Any] | None = None,
        **changes: Any,
    ) -> str:
        """Return a JWT, signed with the newest key unless `key` is given; None omits a header."""
        key = key or self.keys[-1]
        named = {"kid": key.kid, **(headers or {})}
        return jwt.encode(
            self.claims(**changes),
            key.private,
            algorithm=key.algorithm,
            headers={name: value for name, value in named.items() if value is not None},
        )

    def break_down(self, status: int = 503) -> None:
        """Answer every request with an error."""
        for path in (_DISCOVERY, _JWKS):
            self.answers[path] = (status, {}, b"down")

    def answer(self, path: str) -> Answer:
        """Return the response to a request for a path."""
        if path in self.answers:
            return self.answers[path]
        if path == _DISCOVERY:
            usual = {"issuer": self.url, "jwks_uri": self.jwks_url}
            return _json(usual | self.discovery)
        if path == _JWKS:
            keys = [*(key.jwk() for key in self.keys), *self.extra_jwks]
            return _json({"keys": keys}, "application/jwk-set+json")
        return 404, {}, b""

    def fetches(self) -> int:
        """Return how many times the key set was fetched."""
        return self.requests.count(_JWKS)


def _json(document: dict[str, Any], media_type: str = "application/json") -> Answer:
    return 200, {"Content-Type": media_type}, json.dumps(document).encode()


_KEY_POOL: dict[str, list[PrivateKey]] = {}
_KEYS_TAKEN: dict[str, int] = {}


def _next_private_key(algorithm: str) -> PrivateKey:
    """Return one of four keys in turn: generating an RSA key takes long."""
    pool = _KEY_POOL.setdefault(algorithm, [])
    turn = _KEYS_TAKEN[algorithm] = _KEYS_TAKEN.get(algorithm, -1) + 1
    if len(pool) < 4:
        pool.append(private_key(algorithm))
    return pool[turn % len(pool)] if turn >= 4 else pool[-1]


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Print nothing: some tests disconnect, or distrust the certificate, on purpose."""


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Return the PEM files of a self-signed certificate for 127.0.0.1 and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer of the tests")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "issuer.crt", folder / "issuer.key"
    certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate_file, key_file


@contextmanager
def oidc_issuer(
    clock: Clock, *, certificate: tuple[Path, Path] | None = None
) -> Iterator[OidcIssuer]:
    """Run an issuer with one RS256 key; on https if a certificate and its key are given."""
    issuer = OidcIssuer(clock)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            issuer.requests.append(self.path)
            issuer.authorizations.append(self.headers.get("Authorization"))
            issuer.may_answer.wait(30)
            status, headers, body = issuer.answer(self.path)
            # As the Kubernetes API does.
            accepted = self.headers.get("Accept", "*/*")
            if "*/*" not in accepted and headers.get("Content-Type", "") not in accepted:
                status, headers, body = 406, {}, b""
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    server = _QuietServer(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        # The handshake happens in the connection's own thread.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    scheme = "https" if certificate is not None else "http"
    issuer.url = f"{scheme}://127.0.0.1:{server.server_address[1]}"
    issuer.rotate()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="oidc issuer")
    thread.start()
    try:
        yield issuer
    finally:
        issuer.may_answer.set()
        server.shutdown()
        server.server_close()
        thread.join()
