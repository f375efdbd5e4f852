"""Warnings about a valid callers file; nothing here rejects anything."""

from collections.abc import Iterator
from difflib import get_close_matches

from broker.callers.callers_file import CallersFile
from broker.callers.keys import quote
from broker.callers.model import Caller, Permission
from broker.scopes import missing


def find_warnings(file: CallersFile, allowed_scopes: tuple[str, ...]) -> list[str]:
    """Return one line per warning; `allowed_scopes` is `GOOGLE_SCOPES`, or empty if unknown."""
    if not file.callers:
        return ["no caller is listed: every request will be refused"]
    about_callers = [
        f"callers.{caller.name}: {text}"
        for caller in file.callers
        for text in _warnings_about(caller, file, allowed_scopes)
    ]
    return [*about_callers, *_warnings_about_issuers(file)]


def _warnings_about(
    caller: Caller, file: CallersFile, allowed_scopes: tuple[str, ...]
) -> Iterator[str]:
    if (
        caller.require_confirmation
        and Permission.LINKS_CREATE in caller.permissions
        and not caller.return_to
    ):
        yield "links must be confirmed, but no `return_to` is listed, so it can create no link"
    if caller.subject_required and not any(issuer.users for issuer in file.issuers()):
        yield (
            "`subject_required`, but no issuer has `users`, so no user's JWT is accepted: it gets "
            "no token at all"
        )
    if allowed_scopes:
        for scope in missing(caller.scopes, allowed_scopes):
            yield f"{quote(scope)} is not in GOOGLE_SCOPES, so no link may request it" + (
                _suggestion(scope, allowed_scopes)
            )


def _warnings_about_issuers(file: CallersFile) -> Iterator[str]:
    in_use = {issuer.url for issuer in file.issuers()}
    of_users = [issuer for issuer in file.configured_issuers if issuer.users]
    for issuer in file.configured_issuers:
        if issuer.url not in in_use:
            yield f"issuers.{issuer.url} is unused: no `workload` names it, and it has no `users`"
    if len(of_users) > 1:
        yield (
            "issuers: several have `users`; the same user id of two issuers is one user here, so "
            "each must give its ids to the same people"
        )
    for issuer in of_users:
        for caller in file.callers:
            workload, users = caller.workload, issuer.users
            if (
                workload
                and users
                and (workload.issuer, workload.audience)
                == (
                    issuer.url,
                    users.audience,
                )
            ):
                yield (
                    f"issuers.{issuer.url}: users and the workload {caller.name} share the "
                    f"audience {quote(users.audience)}; another service's JWT could pass for a "
                    "user's, so give them different ones"
                )


def _suggestion(scope: str, allowed_scopes: tuple[str, ...]) -> str:
    # Google's scopes differ in their last part only: all whole names are similar.
    by_last_part = {_last_part(allowed): allowed for allowed in allowed_scopes}
    close = get_close_matches(_last_part(scope), by_last_part, n=1, cutoff=0.8)
    return f"; did you mean {by_last_part[close[0]]!r}?" if close else ""


def _last_part(scope: str) -> str:
    return scope.rpartition("/")[2]
