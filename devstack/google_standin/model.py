"""What the stand-in remembers: accounts, clients, authorizations and tokens, as plain records.

No behaviour lives here; every field is JSON-friendly, so that a state file is just these records.
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
    """All that one account has granted to one project."""

    project: str
    sub: str
    scopes: list[str] = field(default_factory=list)
    refresh_token_sent: bool = False
    """Google sends one the first time only, unless the request says `prompt=consent`."""


@dataclass
class Code:
    """An authorization code, good for one exchange until `expires_at` (epoch seconds)."""

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
    """A live refresh token; dead ones are forgotten."""

    value: str
    client_id: str
    project: str
    sub: str
    scopes: list[str]


@dataclass
class AccessToken:
    """An access token; `expires_at` in epoch seconds."""

    value: str
    client_id: str
    project: str
    sub: str
    scopes: list[str]
    expires_at: float
    offline: bool
