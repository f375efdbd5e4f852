"""Faults of Google as values, and the plan of the requests that they apply to.

The endpoints carry a fault out.
"""

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from devstack.google_standin.model import Account

Kind = Literal[
    "drop", "silence", "half", "delay", "hold", "http", "error", "edit", "id_token", "rotate"
]
KINDS: frozenset[str] = frozenset(
    {"drop", "silence", "half", "delay", "hold", "http", "error", "edit", "id_token", "rotate"}
)
ENDPOINTS = frozenset(
    {
        "discovery",
        "jwks",
        "authorize",
        "callback",
        "token",
        "revoke",
        "userinfo",
        "tokeninfo",
        "calendar",
        "risc_configuration",
        "risc",
    }
)
ID_TOKEN_DEFECTS = frozenset(
    {
        "nonce",
        "missing_nonce",
        "aud",
        "iss",
        "expired",
        "alg_none",
        "hs256",
        "unknown_kid",
        "bad_signature",
        "missing_sub",
        "empty_sub",
        "null_sub",
        "at_hash",
        "not_a_jwt",
    }
)


@dataclass(frozen=True)
class Fault:
    """One kind of failure, made by the constructors below, or by `from_json`."""

    kind: Kind
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def drop(cls) -> "Fault":
        """The connection closes without an answer."""
        return cls("drop")

    @classmethod
    def silence(cls, seconds: float = 30) -> "Fault":
        """Nothing happens for this long, then the connection closes."""
        return cls("silence", {"seconds": seconds})

    @classmethod
    def half(cls) -> "Fault":
        """The request is carried out, but only half of the body arrives."""
        return cls("half")

    @classmethod
    def delay(cls, seconds: float, *, after: bool = False) -> "Fault":
        """A normal answer, late; with `after` the request is carried out before the wait."""
        return cls("delay", {"seconds": seconds, "after": after})

    @classmethod
    def hold(cls, name: str = "hold", *, after: bool = False) -> "Fault":
        """A normal answer, once a test releases it; see `Holds`."""
        return cls("hold", {"name": name, "after": after})

    @classmethod
    def http(cls, status: int, body: str = "", headers: Mapping[str, str] | None = None) -> "Fault":
        """Any answer."""
        return cls("http", {"status": status, "body": body, "headers": dict(headers or {})})

    @classmethod
    def rate_limited(cls, retry_after: int | str = 1) -> "Fault":
        """429 with `Retry-After`."""
        body = '{"error": "rate_limit_exceeded", "error_description": "Quota exceeded"}'
        headers = {"retry-after": str(retry_after), "content-type": "application/json"}
        return cls.http(429, body, headers)

    @classmethod
    def html_403(cls) -> "Fault":
        """403 with a page, as Google sends if many machines use one refresh token."""
        page = "<!DOCTYPE html><html><title>Sorry...</title><body>Automated queries</body></html>"
        return cls.http(403, page, {"content-type": "text/html; charset=UTF-8"})

    @classmethod
    def not_json(cls, body: str = '{"access_token": "ya29.cut', status: int = 200) -> "Fault":
        """A body that is not the JSON that its media type announces."""
        return cls.http(status, body, {"content-type": "application/json; charset=utf-8"})

    @classmethod
    def error(
        cls,
        code: str,
        *,
        status: int | None = None,
        description: str | None = None,
        subtype: str | None = None,
    ) -> "Fault":
        """An OAuth error: JSON at `token` and `revoke`, a page at `authorize`, a redirect at
        `callback`.
        """
        return cls(
            "error",
            {"code": code, "status": status, "description": description, "subtype": subtype},
        )

    @classmethod
    def invalid_grant(cls, subtype: str | None = None) -> "Fault":
        description = "Token has been expired or revoked."
        if subtype == "invalid_rapt":
            description = "reauth related error (invalid_rapt)"
        return cls.error("invalid_grant", description=description, subtype=subtype)

    @classmethod
    def invalid_client(cls) -> "Fault":
        return cls.error("invalid_client", status=401, description="Unauthorized")

    @classmethod
    def unauthorized_client(cls) -> "Fault":
        return cls.error("unauthorized_client", status=401, description="Unauthorized")

    @classmethod
    def deleted_client(cls) -> "Fault":
        return cls.error("deleted_client", status=401, description="The OAuth client was deleted.")

    @classmethod
    def internal_failure(cls, status: int = 400) -> "Fault":
        """A failure of Google's own, with a status that looks like the client's fault."""
        return cls.error("internal_failure", status=status, description="Backend Error")

    @classmethod
    def without(cls, *members: str) -> "Fault":
        """A normal JSON answer without these members."""
        return cls("edit", {"remove": list(members)})

    @classmethod
    def replacing(cls, **members: Any) -> "Fault":
        """A normal JSON answer with other values; at `callback`, other query parameters. None
        removes one.
        """
        return cls("edit", {"set": members})

    @classmethod
    def id_token(cls, defect: str | None = None, **claims: Any) -> "Fault":
        """An ID token with one of `ID_TOKEN_DEFECTS`, or with other claims; None removes one."""
        if defect is not None and defect not in ID_TOKEN_DEFECTS:
            raise ValueError(f"no such defect of an ID token: {defect}")
        return cls("id_token", {"defect": defect, "claims": claims})

    @classmethod
    def rotate_refresh_token(cls, *, retire_old: bool = True, hold: str | None = None) -> "Fault":
        """The refresh returns a new refresh token, and revokes the old one with `retire_old`.

        `hold` names a hold that delays the answer, after the rotation.
        """
        return cls("rotate", {"retire_old": retire_old, "hold": hold})

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Fault":
        """`{"kind": …, …details}`. Raises `ValueError`."""
        details = dict(document)
        kind = details.pop("kind", None)
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(sorted(KINDS))}")
        constructors: dict[str, Callable[..., Fault]]
        constructors = {"http": cls.http, "error": cls.error, "silence": cls.silence}
        constructors |= {"delay": cls.delay, "hold": cls.hold, "rotate": cls.rotate_refresh_token}
        if kind == "id_token":
            return cls.id_token(details.get("defect"), **details.get("claims", {}))
        try:
            return constructors[kind](**details) if kind in constructors else cls(kind, details)
        except TypeError as error:
            raise ValueError(f"{kind}: {error}") from error


@dataclass
class PlannedFault:
    """A fault and the requests that it applies to; `remaining` None means until cleared."""

    endpoint: str
    fault: Fault
    remaining: int | None = 1
    account: str | None = None
    """A `sub` or an email."""
    grant_type: str | None = None
    client_id: str | None = None
    met: int = 0
    """The number of requests that it has applied to."""

    def matches(
        self,
        endpoint: str,
        *,
        account: Account | None,
        grant_type: str | None,
        client_id: str | None,
    ) -> bool:
        return (
            self.endpoint == endpoint
            and self.remaining != 0
            and self.grant_type in (None, grant_type)
            and self.client_id in (None, client_id)
            and self._is_for(account)
        )

    def _is_for(self, account: Account | None) -> bool:
        if self.account is None:
            return True
        return account is not None and self.account in (account.sub, account.email)


class FaultPlan:
    """The planned faults. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._planned: list[PlannedFault] = []

    def next(
        self,
        endpoint: str,
        fault: Fault,
        *,
        times: int | None = 1,
        account: str | None = None,
        grant_type: str | None = None,
        client_id: str | None = None,
    ) -> PlannedFault:
        """Apply a fault to the next `times` matching requests; earlier plans apply first."""
        if endpoint not in ENDPOINTS:
            raise ValueError(f"endpoint must be one of {', '.join(sorted(ENDPOINTS))}")
        planned = PlannedFault(endpoint, fault, times, account, grant_type, client_id)
        with self._lock:
            self._planned.append(planned)
        return planned

    def always(
        self,
        endpoint: str,
        fault: Fault,
        *,
        account: str | None = None,
        grant_type: str | None = None,
        client_id: str | None = None,
    ) -> PlannedFault:
        """Apply a fault to every matching request, until `clear`."""
        return self.next(
            endpoint,
            fault,
            times=None,
            account=account,
            grant_type=grant_type,
            client_id=client_id,
        )

    def clear(self, endpoint: str | None = None) -> None:
        """Delete all planned faults, or those of one endpoint."""
        with self._lock:
            self._planned = [
                p for p in self._planned if endpoint is not None and p.endpoint != endpoint
            ]

    def take(
        self,
        endpoint: str,
        *,
        account: Account | None = None,
        grant_type: str | None = None,
        client_id: str | None = None,
        kinds: Collection[str] = KINDS,
    ) -> Fault | None:
        """Return the fault for this request, and count it as used once."""
        with self._lock:
            for planned in self._planned:
                if planned.fault.kind in kinds and planned.matches(
                    endpoint, account=account, grant_type=grant_type, client_id=client_id
                ):
                    planned.met += 1
                    if planned.remaining is not None:
                        planned.remaining -= 1
                    return planned.fault
        return None

    def pending(self) -> list[PlannedFault]:
        """Return the faults that still apply to some request."""
        with self._lock:
            return [planned for planned in self._planned if planned.remaining != 0]
