"""Service-account tokens as Kubernetes projects them into a pod, and Vault roles for them."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from broker.secret import Secret
from broker.settings import VaultJwtLogin
from devstack.openbao import OpenBao
from tests.support.issuer import OidcIssuer
from tests.support.openbao import VaultPlace, as_root

AUDIENCE = "vault"
SUBJECT = "system:serviceaccount:brokers:token-broker"
HOUR = timedelta(hours=1)


@dataclass
class ProjectedToken:
    """The token file of a pod, written by the test instead of a kubelet."""

    issuer: OidcIssuer
    file: Path
    written: list[Secret] = field(default_factory=list)

    def write(self, **claims: Any) -> Secret:
        """Replace the file with a new token."""
        usual = {"aud": [AUDIENCE], "sub": SUBJECT, "jti": f"token-{len(self.written)}"}
        token = Secret(self.issuer.mint(**(usual | claims)))
        # A kubelet replaces the file atomically, too.
        next_file = self.file.with_suffix(".next")
        next_file.write_text(token.reveal())
        next_file.replace(self.file)
        self.written.append(token)
        return token

    def login(self, role: str, method: Literal["kubernetes", "jwt"] = "jwt") -> VaultJwtLogin:
        """Return the settings of a broker that logs in with the file."""
        return VaultJwtLogin(method, role, self.file)


def trust_by_jwks(server: OpenBao, issuer: OidcIssuer, *, namespace: str | None = None) -> None:
    """Mount the method `jwt`, with the keys at the issuer's JWKS URL."""
    _mount_jwt(server, {"jwks_url": issuer.jwks_url, "bound_issuer": issuer.url}, namespace)


def trust_by_pem(server: OpenBao, issuer: OidcIssuer) -> None:
    """Mount the method `jwt`, with a copy of the issuer's newest key."""
    pem = issuer.keys[-1].public_pem()
    _mount_jwt(server, {"jwt_validation_pubkeys": [pem], "bound_issuer": issuer.url}, None)


def _mount_jwt(server: OpenBao, config: dict[str, Any], namespace: str | None) -> None:
    with as_root(server) as vault:
        vault.adapter.namespace = namespace
        vault.sys.enable_auth_method("jwt")
        vault.adapter.post("/v1/auth/jwt/config", json=config)


def jwt_role(place: VaultPlace, *, namespace: str | None = None, **options: Any) -> str:
    """Create a role of the method `jwt` that may read `place`; its tokens show the JWT's `jti`."""
    role = {
        "role_type": "jwt",
        "bound_audiences": [AUDIENCE],
        "bound_subject": SUBJECT,
        "user_claim": "jti",
    }
    return _role(place, "jwt", role | options, namespace)


def kubernetes_role(place: VaultPlace, account: str) -> str:
    """Create a role of the method `kubernetes` that may read `place`."""
    role = {
        "bound_service_account_names": [account],
        "bound_service_account_namespaces": ["brokers"],
        "audience": AUDIENCE,
    }
    return _role(place, "kubernetes", role)


def _role(
    place: VaultPlace, method: str, role: dict[str, Any], namespace: str | None = None
) -> str:
    name = place.path.replace("/", "-")
    policy = f'path "secret/data/{place.path}" {{ capabilities = ["read"] }}'
    common = {"token_policies": [name], "token_ttl": "1h", "token_max_ttl": "24h"}
    with as_root(place.server) as vault:
        vault.adapter.namespace = namespace
        vault.sys.create_or_update_policy(name, policy)
        vault.adapter.post(f"/v1/auth/{method}/role/{name}", json=common | role)
    return name
