"""Path parameters, query strings and forms: parsed and checked in one place."""

from collections.abc import Collection, Mapping, Sequence
from urllib.parse import parse_qsl, unquote_to_bytes

from starlette.requests import Request

from broker.web.problems import invalid_request

USER_ID_LIMIT = 255
"""Characters."""

QUERY_LIMIT = 8192
"""Bytes of a browser's query. Google allows 256 for a code; all that it sends stays far below."""

_API_PARAMETERS_LIMIT = 20
_BROWSER_PARAMETERS_LIMIT = 30


def is_user_id(text: str) -> bool:
    """True for 1 to 255 characters without a control character or a lone surrogate."""
    return 0 < len(text) <= USER_ID_LIMIT and not any(
        char < " " or "\x7f" <= char <= "\x9f" or "\ud800" <= char <= "\udfff" for char in text
    )


def checked_user_id(user_id: str) -> str:
    """Return the user id. Raises `Problem` if it is invalid."""
    if not is_user_id(user_id):
        raise invalid_request(
            "user_id", "user_id must have 1 to 255 characters, none of them a control character."
        )
    return user_id


def path_parameter(request: Request, name: str) -> str:
    """Return a path parameter, percent-decoded once. Raises `Problem` if it is not UTF-8."""
    try:
        return unquote_to_bytes(request.path_params[name]).decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid_request(name, f"{name} is not percent-encoded UTF-8.") from error


def user_id_from(request: Request) -> str:
    """Return the path's `user_id`. Raises `Problem` if it is invalid."""
    return checked_user_id(path_parameter(request, "user_id"))


def query_parameters(request: Request, allowed: Collection[str]) -> Mapping[str, str]:
    """Return an API request's query parameters.

    Raises `Problem`, which names the field, if one is unknown, repeated or malformed.
    """
    try:
        pairs = parse_pairs(
            request.scope["query_string"], at_most=_API_PARAMETERS_LIMIT, is_strict=True
        )
    except ValueError as error:
        raise invalid_request("query", "The query string is malformed.") from error
    parameters: dict[str, str] = {}
    for name, value in pairs:
        if name not in allowed:
            known = ", ".join(sorted(allowed)) or "none"
            raise invalid_request("query", f"Unknown parameter; known here: {known}.")
        if name in parameters:
            raise invalid_request(name, f"{name} is given more than once.")
        parameters[name] = value
    return parameters


def read_query(query_string: bytes) -> dict[str, str] | None:
    """Return the parameters of a browser's query. Unknown ones are kept.

    None if the query is too long or unreadable, or repeats a parameter (RFC 6749 §3.1).
    """
    if len(query_string) > QUERY_LIMIT:
        return None
    return unique_parameters(query_string, at_most=_BROWSER_PARAMETERS_LIMIT)


def unique_parameters(encoded: bytes, *, at_most: int) -> dict[str, str] | None:
    """Return the parameters of a query or form. None if one is repeated or unreadable."""
    try:
        pairs = parse_pairs(encoded, at_most=at_most)
    except ValueError:
        return None
    parameters = dict(pairs)
    return parameters if len(parameters) == len(pairs) else None


def parse_pairs(
    encoded: bytes, *, at_most: int, is_strict: bool = False
) -> Sequence[tuple[str, str]]:
    """Decode `application/x-www-form-urlencoded` bytes into names and values, in their order.

    Raises `ValueError` for more than `at_most` pairs and for what is not ASCII or not
    percent-encoded UTF-8; with `is_strict` also for a pair without `=`. The error's text may quote
    a value.
    """
    return parse_qsl(
        encoded.decode("ascii"),
        keep_blank_values=True,
        strict_parsing=is_strict and bool(encoded),
        errors="strict",
        max_num_fields=at_most,
    )
