"""Reads the form of the token endpoint: every parameter once, and only from the body."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request

from broker.exchange.errors import OAuthError, invalid_request
from broker.web.bodies import BODY_LIMIT, read_within
from broker.web.parameters import parse_pairs

_FORM = "application/x-www-form-urlencoded"
_MOST_PARAMETERS = 50
_REPEATABLE = frozenset({"resource", "audience"})
"""RFC 8693 §2.1: a client may name several targets."""
_GOOGLE_DOMAINS = ("googleapis.com", "google.com")


@dataclass(frozen=True, slots=True)
class Form:
    """The parameters. One without a value counts as omitted (RFC 6749 §3.2)."""

    parameters: Mapping[str, str]
    targets: tuple[str, ...]
    """Every `resource` and `audience`."""

    def get(self, name: str) -> str | None:
        """Return the parameter's value, if it has one."""
        return self.parameters.get(name) or None

    def required(self, name: str) -> str:
        """Return the parameter's value. Raises `OAuthError` if it has none."""
        value = self.get(name)
        if value is None:
            raise invalid_request(f"{name} is missing.")
        return value


async def read_form(request: Request) -> Form:
    """Return the form. Raises `OAuthError`, or `Problem` 413 if it is too long."""
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != _FORM:
        raise invalid_request(f"Send {_FORM}.")
    return parse_form(await read_within(request, BODY_LIMIT))


def parse_form(body: bytes) -> Form:
    """Return the form of a body. Raises `OAuthError`."""
    try:
        pairs = parse_pairs(body, at_most=_MOST_PARAMETERS, is_strict=True)
    except ValueError:
        # Not chained: its text may quote a value.
        raise _malformed() from None
    parameters: dict[str, str] = {}
    targets: list[str] = []
    for name, value in pairs:
        if name in _REPEATABLE:
            targets.append(value)
        elif name in parameters:
            # Does not name the parameter: the name is the sender's text.
            raise invalid_request("A parameter is given more than once.")
        else:
            parameters[name] = value
    return Form(parameters, tuple(target for target in targets if target))


def is_google(target: str) -> bool:
    """True if a target is Google or one of its APIs: an https URL, or a host name alone."""
    try:
        parts = urlsplit(target if "//" in target else f"https://{target}")
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        return False
    if parts.scheme != "https" or "#" in target or "@" in parts.netloc:
        return False
    return any(host == name or host.endswith(f".{name}") for name in _GOOGLE_DOMAINS)


def _malformed() -> OAuthError:
    return invalid_request("The form is malformed.")
