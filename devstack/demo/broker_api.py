"""A client of the broker's internal API, as a service would write it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote, unquote

import httpx2

from broker.secret import Secret


@dataclass(frozen=True, slots=True)
class Account:
    """A Google account, as the broker returns it."""

    sub: str
    email: str


@dataclass(frozen=True, slots=True)
class Grant:
    """What a user allowed for one account."""

    account: Account
    scopes: tuple[str, ...]
    status: str
    reason: str | None
    is_default: bool
    connected_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class Token:
    """An access token, and the broker's facts about it."""

    access_token: Secret
    expires_in: int
    scopes: tuple[str, ...]
    account: Account


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the broker, for display."""

    method: str
    path: str
    answer: str
    milliseconds: float


class BrokerRefusedError(Exception):
    """The broker answered with a problem (RFC 9457), or not at all; the texts are for a person."""

    def __init__(self, title: str, detail: str, code: str | None = None) -> None:
        super().__init__(title)
        self.title = title
        self.detail = detail
        self.code = code


@dataclass
class BrokerApi:
    """The calls for one page; `calls` lists them."""

    http: httpx2.AsyncClient
    """Knows the broker's address and this service's key."""
    calls: list[Call] = field(default_factory=list)

    async def connect_link(
        self, user: str, scopes: Sequence[str], *, return_to: str, login_hint: str | None
    ) -> str:
        """Create a connect link; return the URL for the user's browser."""
        body = {"scopes": list(scopes), "return_to": return_to}
        if login_hint:
            body["login_hint"] = login_hint
        answer = await self._call("POST", f"{_user_path(user)}/connect-links", json=body)
        return str(answer["url"])

    async def connections_link(self, user: str, *, return_to: str) -> str:
        """Return the URL of the user's own connections page."""
        body = {"return_to": return_to}
        answer = await self._call("POST", f"{_user_path(user)}/connections-links", json=body)
        return str(answer["url"])

    async def token(self, user: str, *, account: str, scope: str | None = None) -> Token:
        """Request a token for one account; `scope` narrows it."""
        parameters = {"account": account, **({"scope": scope} if scope else {})}
        answer = await self._call("GET", f"{_user_path(user)}/token", params=parameters)
        return Token(
            access_token=Secret(answer["access_token"]),
            expires_in=int(answer["expires_in"]),
            scopes=tuple(answer["scope"].split()),
            account=Account(answer["account"]["sub"], answer["account"]["email"]),
        )

    async def grants(self, user: str) -> list[Grant]:
        """Return the user's grants in any status."""
        answer = await self._call("GET", f"{_user_path(user)}/grants")
        return [_grant(item) for item in answer["grants"]]

    async def withdraw(self, user: str, *, account: str) -> None:
        """Revoke one grant."""
        await self._call("DELETE", f"{_user_path(user)}/grants/{quote(account, safe='')}")

    async def _call(self, method: str, path: str, **content: Any) -> Any:
        request = self.http.build_request(method, path, **content)
        started = time.perf_counter()
        answer = "no answer"
        try:
            response = await self.http.send(request)
            answer = f"{response.status_code} {response.reason_phrase}"
            return _checked(response)
        except httpx2.HTTPError as error:
            raise BrokerRefusedError(
                "The broker does not answer",
                f"{self.http.base_url} did not answer. Is it running? "
                "Its log is .devstack/logs/broker.log.",
            ) from error
        finally:
            took = (time.perf_counter() - started) * 1000
            address = unquote(request.url.raw_path.decode("ascii"))
            self.calls.append(Call(method, address, answer, took))


def _user_path(user: str) -> str:
    return f"/v1/users/{quote(user, safe='')}"


def _checked(response: httpx2.Response) -> Any:
    if response.status_code == 204:
        return None
    try:
        document = response.json()
    except ValueError:
        document = None
    if response.is_success and document is not None:
        return document
    problem: Mapping[str, Any] = document if isinstance(document, dict) else {}
    raise BrokerRefusedError(
        str(problem.get("title") or f"The broker answered {response.status_code}"),
        str(problem.get("detail") or "It gave no reason."),
        problem.get("code"),
    )


def _grant(item: Mapping[str, Any]) -> Grant:
    return Grant(
        account=Account(item["account"]["sub"], item["account"]["email"]),
        scopes=tuple(item["scopes"]),
        status=item["status"],
        reason=item.get("reason"),
        is_default=bool(item["default"]),
        connected_at=_moment(item.get("connected_at")),
        last_used_at=_moment(item.get("last_used_at")),
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
