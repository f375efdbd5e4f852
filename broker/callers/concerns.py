"""What is worth telling an operator about callers that are valid; nothing here refuses anything."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from broker.callers.keys import quote
from broker.callers.model import Caller, Permission
from broker.google.scopes import missing


def find_concerns(callers: Iterable[Caller], allowed_scopes: tuple[str, ...]) -> list[str]:
    """One line each; `allowed_scopes` is `GOOGLE_SCOPES`, or empty if it isn't known."""
    listed = list(callers)
    if not listed:
        return ["no caller is listed: every request will be refused"]
    return [
        f"clients.{caller.name}: {text}"
        for caller in listed
        for text in _concerns_about(caller, allowed_scopes)
    ]


def _concerns_about(caller: Caller, allowed_scopes: tuple[str, ...]) -> Iterator[str]:
    if caller.workload is not None:
        instead = "its keys still serve" if caller.key_hashes else "nobody can call as it"
        yield f"this release does not read `workload`; {instead}"
    if (
        caller.require_confirmation
        and Permission.LINKS_CREATE in caller.permissions
        and not caller.return_to
    ):
        yield "links must be confirmed, and no `return_to` is listed, so that it can make none"
    if allowed_scopes:
        for scope in missing(caller.scopes, allowed_scopes):
            yield f"{quote(scope)} is not in GOOGLE_SCOPES, so no link may ask for it" + (
                _suggestion(scope, allowed_scopes)
            )


def _suggestion(scope: str, allowed_scopes: tuple[str, ...]) -> str:
    # Google's scopes differ in their last part only: whole names would all look alike.
    by_last_part = {_last_part(allowed): allowed for allowed in allowed_scopes}
    close = get_close_matches(_last_part(scope), by_last_part, n=1, cutoff=0.8)
    return f"; did you mean {by_last_part[close[0]]!r}?" if close else ""


def _last_part(scope: str) -> str:
    return scope.rpartition("/")[2]
