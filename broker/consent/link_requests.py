"""Reads a caller's request for a connect link, and refuses whatever the policy does not allow.

All that comes out of here may be put to Google, and to the user's browser, as it stands.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from broker.callers.model import Caller
from broker.google.scopes import IDENTITY_SCOPES, canonical, is_scope_name, missing, parse_scopes
from broker.settings import IDENTITY_SCOPES as ALWAYS_ASKED
from broker.web.problems import invalid_request, scope_not_allowed

_MEMBERS = ("scopes", "return_to", "login_hint", "redirect_uri", "confirm")
_MOST_SCOPES = 100
_LONGEST_HINT = 320
"""Characters of the longest email address (RFC 5321 §4.5.3.1)."""


@dataclass(frozen=True, slots=True)
class LinkRequest:
    """What a link shall ask for, checked."""

    scopes: tuple[str, ...]
    """Identity scopes included, no scope twice under two names."""
    redirect_uri: str
    return_to: str | None
    login_hint: str | None
    confirm: bool


def read_link_request(
    body: Mapping[str, Any],
    caller: Caller,
    *,
    allowed_scopes: Sequence[str],
    redirect_uris: Sequence[str],
) -> LinkRequest:
    """The request, if this caller may make it. Raises `Problem` 400 naming the member, or 403."""
    unknown = sorted(set(body) - set(_MEMBERS))
    if unknown:
        raise invalid_request(
            _shown(unknown[0]), f"Unknown member; known here: {', '.join(_MEMBERS)}."
        )
    asked = _scopes(body)
    refused = _refused_scopes(asked, allowed_scopes, caller.scopes)
    if refused:
        raise scope_not_allowed(refused)
    return_to = _return_to(body, caller)
    return LinkRequest(
        scopes=(*ALWAYS_ASKED, *missing(_once(asked), ALWAYS_ASKED)),
        redirect_uri=_redirect_uri(body, redirect_uris),
        return_to=return_to,
        login_hint=_login_hint(body),
        confirm=_confirm(body, caller, return_to),
    )


def _shown(name: str) -> str:
    """A member's name as a problem may repeat it; JSON allows names that UTF-8 does not."""
    return name if re.fullmatch(r"[\w.-]{1,32}", name, re.ASCII) else "body"


def _scopes(body: Mapping[str, Any]) -> tuple[str, ...]:
    value = body.get("scopes")
    names = parse_scopes(value) if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise invalid_request("scopes", "scopes is required: a list of scope names.")
    if not 0 < len(names) <= _MOST_SCOPES:
        raise invalid_request("scopes", f"scopes must have 1 to {_MOST_SCOPES} names.")
    if not all(map(is_scope_name, names)):
        raise invalid_request("scopes", "scopes has a name that no scope may have (RFC 6749 §3.3).")
    return tuple(names)


def _refused_scopes(
    asked: Sequence[str], allowed: Sequence[str], callers: Sequence[str]
) -> Sequence[str]:
    """Those beyond the broker's list or the caller's; who the user is may always be asked."""
    beyond = {*missing(asked, allowed), *missing(asked, callers)}
    return sorted(scope for scope in beyond if canonical(scope) not in IDENTITY_SCOPES)


def _once(scopes: Sequence[str]) -> Sequence[str]:
    return tuple({canonical(scope): scope for scope in reversed(scopes)}.values())[::-1]


def _confirm(body: Mapping[str, Any], caller: Caller, return_to: str | None) -> bool:
    """Whether it must be confirmed: a policy that demands it is not talked out of it."""
    confirm = bool(_member(body, "confirm", bool)) or caller.require_confirmation
    if confirm and return_to is None:
        raise invalid_request(
            "return_to",
            "return_to is required where a link must be confirmed: the code comes back there.",
        )
    return confirm


def _redirect_uri(body: Mapping[str, Any], redirect_uris: Sequence[str]) -> str:
    uri = _member(body, "redirect_uri", str, redirect_uris[0])
    if uri not in redirect_uris:
        raise invalid_request("redirect_uri", "redirect_uri is none of the configured ones.")
    return str(uri)


def _return_to(body: Mapping[str, Any], caller: Caller) -> str | None:
    address: str | None = _member(body, "return_to", str)
    if address is not None and address not in caller.return_to:
        raise invalid_request(
            "return_to", "return_to is not in this caller's list; it must match exactly."
        )
    return address


def _login_hint(body: Mapping[str, Any]) -> str | None:
    hint: str | None = _member(body, "login_hint", str)
    if hint is None:
        return None
    if not 0 < len(hint) <= _LONGEST_HINT or not hint.isprintable():
        raise invalid_request(
            "login_hint",
            f"login_hint must have 1 to {_LONGEST_HINT} characters, all of them printable.",
        )
    return hint


def _member(body: Mapping[str, Any], name: str, kind: type, default: Any = None) -> Any:
    value = body.get(name, default)
    if name in body and not isinstance(value, kind):
        raise invalid_request(name, f"{name} must be a {_KIND_NAMES[kind]}.")
    return value


_KIND_NAMES: Mapping[type, str] = {str: "string", bool: "boolean"}
