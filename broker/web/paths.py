"""What may stand in a path or a query, checked in one place."""

from collections.abc import Collection, Mapping
from urllib.parse import parse_qsl, unquote_to_bytes

from starlette.requests import Request

from broker.web.problems import invalid_request

USER_ID_LIMIT = 255
"""Characters."""


def is_user_id(text: str) -> bool:
    """1 to 255 characters, none of them a control character or a lone surrogate."""
    return 0 < len(text) <= USER_ID_LIMIT and not any(
        char < " " or "\x7f" <= char <= "\x9f" or "\ud800" <= char <= "\udfff" for char in text
    )


def checked_user_id(user_id: str) -> str:
    """The user id, if it is one. Raises `Problem`."""
    if not is_user_id(user_id):
        raise invalid_request(
            "user_id", "user_id must have 1 to 255 characters, none of them a control character."
        )
    return user_id


def path_parameter(request: Request, name: str) -> str:
    """A path parameter, percent-decoded once. Raises `Problem` when it is not UTF-8."""
    try:
        return unquote_to_bytes(request.path_params[name]).decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid_request(name, f"{name} is not percent-encoded UTF-8.") from error


def user_id_from(request: Request) -> str:
    """The path's `user_id`. Raises `Problem`."""
    return checked_user_id(path_parameter(request, "user_id"))


def query_parameters(request: Request, allowed: Collection[str]) -> Mapping[str, str]:
    """The query's parameters, each known and given once. Raises `Problem` naming the field."""
    query = request.scope["query_string"]
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(query),
            errors="strict",
            max_num_fields=20,
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
