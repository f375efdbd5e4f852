"""Reads the token endpoint's form: each parameter once, in the body, and nowhere else."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from starlette.requests import Request

from broker.exchange.errors import OAuthError, invalid_request
from broker.web.bodies import BODY_LIMIT, read_within

_FORM = "application/x-www-form-urlencoded"
_MOST_PARAMETERS = 50
_REPEATABLE = frozenset({"resource", "audience"})
"""RFC 8693 §2.1: a token may be asked for several targets."""


@dataclass(frozen=True, slots=True)
class Form:
    """What was sent. One without a value counts as left out (RFC 6749 §3.2)."""

    parameters: Mapping[str, str]
    targets: tuple[str, ...]
    """Each `resource` and `audience`."""

    def get(self, name: str) -> str | None:
        """The parameter's value, if there is one."""
        return self.parameters.get(name) or None

    def required(self, name: str) -> str:
        """The same. Raises `OAuthError` if there is none."""
        value = self.get(name)
        if value is None:
            raise invalid_request(f"{name} is missing.")
        return value


async def read_form(request: Request) -> Form:
    """The form. Raises `OAuthError`, or `Problem` 413 for one that is too long."""
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != _FORM:
        raise invalid_request(f"Send {_FORM}.")
    return _parse(await read_within(request, BODY_LIMIT))


def _parse(body: bytes) -> Form:
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=_MOST_PARAMETERS,
        )
    except ValueError:
        # Not chained: its words may quote a value.
        raise _malformed() from None
    parameters: dict[str, str] = {}
    targets: list[str] = []
    for name, value in pairs:
        if name in _REPEATABLE:
            targets.append(value)
        elif name in parameters:
            # The name is the sender's own words, so it is not repeated here.
            raise invalid_request("A parameter is given more than once.")
        else:
            parameters[name] = value
    return Form(parameters, tuple(target for target in targets if target))


def _malformed() -> OAuthError:
    return invalid_request("The form is malformed.")
