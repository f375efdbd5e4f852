"""The records of the stand-in: accounts, clients, authorizations and tokens.

Every field can be JSON: a state file is a list of these records.
"""

from dataclasses import dataclass, field


@dataclass
class Account:
    """A Google account. `sub` never changes, the email may."""

    sub: str
    email: str
    name: str
    hd: str | None = None
    """The Workspace domain, if the account belongs to one."""
    email_verified: bool = True


@dataclass
class Client:
    """An OAuth client. All clients of one `project` share each account's combined authorization."""

    client_id: str
    client_secret: str
    redirect_uris: list[str]
    project: str = ""
    name: str = "Token broker"
    deleted: bool = False

    def __post_init__(self) -> None:
        # Google's client ids begin with the number of their project.
        self.project = self.project or self.client_id.split("-", maxsplit=1)[0]


@dataclass
class Authorization:
    """All scopes that one account has granted to one project."""

    project: str
    sub: str
    scopes: list[str] = field(default_factory=list)
    refresh_token_sent: bool = False
    """Google sends a refresh token only the first time, unless the request has `prompt=consent`."""


@dataclass
class Code:
    """An authorization code, valid for one exchange until `expires_at` (seconds since 1970)."""

    value: str
    client_id: str
    sub: str
    redirect_uri: str
    scopes: list[str]
    nonce: str | None
    code_challenge: str | None
    code_challenge_method: str
    offline: bool
    consent_prompted: bool
    expires_at: float
    used: bool = False


@dataclass
class RefreshToken:
    """A live refresh token; revoked ones are deleted."""

    value: str
    client_id: str
    project: str
    sub: str
    scopes: list[str]


@dataclass
class AccessToken:
    """An access token; `expires_at` in seconds since 1970."""

    value: str
    client_id: str
    project: str
    sub: str
    scopes: list[str]
    expires_at: float
    offline: bool
