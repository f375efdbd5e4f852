"""What Vault's auth method `kubernetes` needs of a cluster: it issues tokens and reviews them.

A real API server where there is one; otherwise a stand-in of its TokenReview, as documented at
https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/.
"""

import json
import secrets
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

import jwt

from broker.clock import SystemClock
from devstack.openbao import OpenBao
from tests.kube.cluster import Cluster, Object
from tests.support.issuer import OidcIssuer, SigningKey, private_key, self_signed
from tests.support.openbao import as_root

_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
_INVALID = "invalid bearer token"


class Kubernetes(Protocol):
    """A cluster with one namespace, `brokers`."""

    url: str
    ca: str
    """PEM."""
    reviewer: str
    """The token with which Vault requests reviews."""

    def create_account(self, name: str) -> None:
        """Create a service account."""
        ...

    def delete_account(self, name: str) -> None:
        """Delete a service account, which makes its tokens invalid."""
        ...

    def issue(self, account: str, audience: str) -> str:
        """Issue a token as for a pod (TokenRequest)."""
        ...


def trust(server: OpenBao, kubernetes: Kubernetes, **changes: Any) -> None:
    """Mount the method `kubernetes`, as for a Vault outside the cluster."""
    config = {
        "kubernetes_host": kubernetes.url,
        "kubernetes_ca_cert": kubernetes.ca,
        "token_reviewer_jwt": kubernetes.reviewer,
    }
    with as_root(server) as vault:
        if "kubernetes/" not in vault.sys.list_auth_methods()["data"]:
            vault.sys.enable_auth_method("kubernetes")
        vault.adapter.post("/v1/auth/kubernetes/config", json=config | changes)


class RealKubernetes:
    """The API server of `tests/kube`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.url, self.reviewer = cluster.url, cluster.token
        self.ca = (cluster.folder / "certs/apiserver.crt").read_text("utf-8")
        cluster.create("/api/v1/namespaces", {"metadata": {"name": "brokers"}})

    def create_account(self, name: str) -> None:
        self._cluster.create(_accounts(), {"metadata": {"name": name}})

    def delete_account(self, name: str) -> None:
        self._cluster.request("DELETE", f"{_accounts()}/{name}")

    def issue(self, account: str, audience: str) -> str:
        spec = {"audiences": [audience], "expirationSeconds": 600}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = self._cluster.create(f"{_accounts()}/{account}/token", body)
        return str(answer["status"]["token"])


def _accounts() -> str:
    return "/api/v1/namespaces/brokers/serviceaccounts"


@dataclass
class StubKubernetes:
    """Answers reviews as the API server does, for tokens that it issued."""

    ca: str
    url: str = ""
    issuer: str = "https://kubernetes.default.svc.cluster.local"
    reviewer: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    uids: dict[str, str] = field(default_factory=dict)
    """Of the service accounts."""
    key: SigningKey = field(
        default_factory=lambda: SigningKey("sa-key", "RS256", private_key("RS256"))
    )

    def create_account(self, name: str) -> None:
        self.uids[name] = secrets.token_hex(8)

    def delete_account(self, name: str) -> None:
        del self.uids[name]

    def issue(self, account: str, audience: str) -> str:
        identity = {"name": account, "uid": self.uids[account]}
        claims: Any = {
            "aud": [audience],
            "sub": f"system:serviceaccount:brokers:{account}",
            "kubernetes.io": {"namespace": "brokers", "serviceaccount": identity},
        }
        issuer = OidcIssuer(SystemClock(), url=self.issuer, keys=[self.key])
        return issuer.mint(**claims)

    def answer(self, path: str, authorization: str | None, body: Object) -> tuple[int, Object]:
        """Status and document."""
        if authorization != f"Bearer {self.reviewer}":
            return 401, _failure(401, "Unauthorized")
        if path != _REVIEWS:
            return 404, _failure(404, "NotFound")
        # As the API server does, which takes what is left out from the path.
        kind = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
        if any(body.get(name, value) != value for name, value in kind.items()):
            return 400, _failure(400, "BadRequest")
        return 201, body | kind | {"status": self._reviewed(body["spec"])}

    def _reviewed(self, spec: Object) -> Object:
        audiences = spec.get("audiences") or [self.issuer]
        try:
            public = self.key.private.public_key()
            claims = jwt.decode(spec["token"], public, ["RS256"], audience=audiences)
        except jwt.InvalidTokenError as error:
            return {"user": {}, "error": f"[{_INVALID}, {error}]"}
        account = claims["kubernetes.io"]["serviceaccount"]
        if self.uids.get(account["name"]) != account["uid"]:
            return {"user": {}, "error": f"[{_INVALID}, no such service account]"}
        groups = [
            "system:serviceaccounts",
            "system:serviceaccounts:brokers",
            "system:authenticated",
        ]
        return {
            "authenticated": True,
            "user": {"username": claims["sub"], "uid": account["uid"], "groups": groups},
            "audiences": [one for one in audiences if one in claims["aud"]],
        }


def _failure(code: int, reason: str) -> Object:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": reason,
        "reason": reason,
        "code": code,
    }


@contextmanager
def stub_kubernetes(folder: Path) -> Iterator[StubKubernetes]:
    """Over https, with a certificate of its own, until the block ends."""
    certificate, key = self_signed(folder)
    stub = StubKubernetes(certificate.read_text("utf-8"))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, document = stub.answer(self.path, self.headers.get("Authorization"), body)
            answer = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    stub.url = f"https://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, args=(0.02,), name="TokenReview")
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
