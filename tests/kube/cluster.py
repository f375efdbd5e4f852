"""A real kube-apiserver on a real etcd, without controllers: the tests act as those that matter."""

import json
import os
import secrets
import ssl
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from devstack.processes import ChildProcess
from tests.support.optional_parts import skip_without
from tests.support.processes import free_ports, started, wait_until

_START_TIMEOUT_SECONDS = 120.0
Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cluster:
    """The API server's address and credentials."""

    url: str
    token: str
    folder: Path

    @property
    def kubeconfig(self) -> str:
        """Return a configuration for Helm."""
        server = {"server": self.url, "insecure-skip-tls-verify": True}
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "it",
                "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
                "clusters": [{"name": "it", "cluster": server}],
                "users": [{"name": "it", "user": {"token": self.token}}],
            }
        )

    def request(
        self, method: str, path: str, body: Object | None = None, kind: str = "application/json"
    ) -> Object:
        """Send one request. Raises `urllib.error.HTTPError`."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": kind},
        )
        context = ssl._create_unverified_context()
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as response:
                answer: Object = json.loads(response.read())
                return answer
        except urllib.error.HTTPError as error:
            error.add_note(error.read().decode(errors="replace"))
            raise

    def names(self, path: str) -> set[str]:
        """Return the names in a list."""
        return {one["metadata"]["name"] for one in self.request("GET", path)["items"]}

    def create(self, path: str, body: Object) -> Object:
        return self.request("POST", path, body)

    @property
    def ca(self) -> str:
        """Return the PEM that verifies its certificate."""
        return (self.folder / "certs/apiserver.crt").read_text("ascii")

    def create_account(self, namespace: str, name: str) -> None:
        """Create a service account, and its namespace if that is missing."""
        if namespace not in self.names("/api/v1/namespaces"):
            self.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
        self.create(_accounts(namespace), {"metadata": {"name": name}})

    def account_token(self, namespace: str, name: str, audience: str | None = None) -> str:
        """Return the token that a kubelet puts into the account's pods; without an audience, the
        API's own.
        """
        spec = {"audiences": [audience]} if audience else {}
        created = self.create(f"{_accounts(namespace)}/{name}/token", {"spec": spec})
        return str(created["status"]["token"])

    def patch_status(self, path: str, status: Object) -> None:
        """Report an object's status, as a controller does."""
        kind = "application/merge-patch+json"
        self.request("PATCH", f"{path}/status", {"status": status}, kind)


def _accounts(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/serviceaccounts"


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Start both programs; stop them at the end."""
    apiserver = os.environ.get("KUBE_APISERVER", "")
    etcd = Path(os.environ.get("KUBE_ETCD") or Path(sysconfig.get_path("scripts")) / "etcd")
    if not Path(apiserver).is_file():
        skip_without("KUBE_APISERVER names no program: run `make kube`")
    if not etcd.is_file():
        skip_without("etcd is missing: run `make kube`")
    client, peer, port = free_ports(3)
    etcd_url = f"http://127.0.0.1:{client}"
    token = secrets.token_urlsafe(32)
    (folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n", "utf-8")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (folder / "sa.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    peer_url = f"http://127.0.0.1:{peer}"
    store = [etcd, "--data-dir", folder / "etcd", "--listen-client-urls", etcd_url]
    store += ["--advertise-client-urls", etcd_url, "--listen-peer-urls", peer_url]
    server = [apiserver, f"--etcd-servers={etcd_url}", "--bind-address=127.0.0.1"]
    server += [f"--secure-port={port}", "--insecure-port=0", f"--cert-dir={folder / 'certs'}"]
    server += ["--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none"]
    server += ["--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=RBAC"]
    server += [f"--token-auth-file={folder / 'tokens.csv'}", "--service-account-issuer=https://it"]
    server += [f"--service-account-key-file={folder / 'sa.key'}"]
    server += [f"--service-account-signing-key-file={folder / 'sa.key'}"]
    with (
        started(list(map(str, store)), log=folder / "etcd.log"),
        started(list(map(str, server)), log=folder / "apiserver.log") as process,
    ):
        cluster = Cluster(f"https://127.0.0.1:{port}", token, folder)
        _wait_until_ready(cluster, process)
        yield cluster


def _wait_until_ready(cluster: Cluster, server: ChildProcess) -> None:
    def is_ready() -> bool:
        server.raise_if_ended()
        try:
            cluster.request("GET", "/api/v1/namespaces/default")
        except OSError:
            return False
        return True

    wait_until("the API server is ready", is_ready, within=_START_TIMEOUT_SECONDS)
