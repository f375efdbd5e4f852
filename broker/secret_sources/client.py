"""The OAuth client as a value: who the broker is at Google, wherever that was kept."""

from dataclasses import dataclass

from broker.secret import Secret


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """One state of the client's credentials."""

    client_id: str
    client_secret: Secret
    version: int
    """Vault's KV version; for the other sources 1, 2, … counting the changes seen."""

    def has_credentials_of(self, other: "OAuthClient") -> bool:
        """Whether Google would see no difference, whatever the versions say."""
        return self.client_id == other.client_id and self.client_secret == other.client_secret
