"""`broker callers`: makes callers' keys and checks the callers file; never writes that file.

Data goes to stdout, explanations to stderr.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

import click

from broker.callers.callers_file import (
    MAX_FILE_BYTES,
    CallersFile,
    CallersFileError,
    decode_callers,
    parse_callers,
)
from broker.callers.checked_yaml import suggest
from broker.callers.file_warnings import find_warnings
from broker.callers.keys import format_digest, hash_key, key_fault, new_key
from broker.callers.model import Caller, Permission
from broker.callers.registry import read_callers
from broker.cli.caller_stanza import NewCaller, flow_list
from broker.cli.output import format_table
from broker.scopes import PREFIX
from broker.settings import ALWAYS_REQUESTED

_callers_file_option = click.option(
    "--callers-file",
    envvar="BROKER_CALLERS_FILE",
    show_envvar=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The callers file in use; only read.",
)
_key_file_option = click.option(
    "--key-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the key to this new file (mode 0600) instead of printing it.",
)


@click.group()
def callers() -> None:
    """Callers: the services that may request tokens."""


@callers.command(short_help="Make a key for a new caller, and print its stanza.")
@click.argument("name")
@click.option(
    "--can",
    multiple=True,
    metavar="PERMISSION",
    help="A permission: " + ", ".join(Permission) + ". Repeat, or separate by commas.",
)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="SCOPE",
    help="A Google scope that its tokens may have. Repeatable.",
)
@click.option(
    "--user",
    "users",
    multiple=True,
    metavar="PATTERN",
    help="A shell-style pattern of the user ids that it may act for; '*' is all. Repeatable.",
)
@click.option(
    "--return-to",
    multiple=True,
    metavar="URL",
    help="An address to which browsers may return after a consent; compared exactly. Repeatable.",
)
@click.option(
    "--require-confirmation",
    is_flag=True,
    help="Consents from this caller's links stay pending until the caller confirms the browser "
    "session.",
)
@click.option(
    "--display-name",
    metavar="TEXT",
    help="The name that users see when it asks them to connect.",
)
@click.option(
    "--subject-required",
    is_flag=True,
    help="It gets tokens only in exchange for the user's own JWT (POST /oauth/token).",
)
@click.option(
    "--requests-per-second",
    type=click.FloatRange(0.01, 1_000_000),
    metavar="NUMBER",
    help="The average rate, for each replica. Without it, only the caller's shares apply.",
)
@click.option(
    "--burst",
    type=click.IntRange(1, 1_000_000),
    metavar="NUMBER",
    help="The largest burst of requests after a pause; by default those of one second.",
)
@click.option(
    "--workload-issuer",
    metavar="URL",
    help="It authenticates by a JWT of this OpenID Connect issuer, without a key. Needs the two "
    "options below.",
)
@click.option("--workload-audience", metavar="TEXT", help="A value that the JWT's `aud` must have.")
@click.option("--workload-subject", metavar="TEXT", help="The exact `sub` of the JWT.")
@_key_file_option
@_callers_file_option
def new(
    *,
    name: str,
    can: Sequence[str],
    scopes: Sequence[str],
    workload_issuer: str | None,
    workload_audience: str | None,
    workload_subject: str | None,
    key_file: Path | None,
    callers_file: Path | None,
    **options: Any,
) -> None:
    """Make a key for the caller NAME, and print the stanza for the callers file.

    \b
    The first line of stdout is the key, which is shown only once. The YAML
    stanza, which holds the key's hash, follows after an empty line. With
    --key-file (or --workload-*), only the YAML stanza is printed.

    \b
    Examples:
      broker callers new calendar-sync --can tokens:read,links:create \\
        --scope https://www.googleapis.com/auth/calendar.readonly --user '*' \\
        --return-to https://app.example.com/settings
      broker callers new calendar-sync --can tokens:read \\
        --scope https://www.googleapis.com/auth/calendar.readonly --user '*' \\
        --workload-issuer https://kubernetes.default.svc \\
        --workload-audience token-broker \\
        --workload-subject system:serviceaccount:prod:calendar-sync
    """
    caller = NewCaller(
        name=name,
        can=[word for text in can for word in text.replace(",", " ").split()],
        scopes=[scope for text in scopes for scope in text.split()],
        workload={
            "issuer": workload_issuer,
            "audience": workload_audience,
            "subject": workload_subject,
        },
        **options,
    )
    faults = caller.faults()
    if caller.is_workload and key_file is not None:
        faults.append("--key-file: a workload has no key")
    _reject(faults)
    known = _known_callers(callers_file)
    if known is not None and any(each.name == name for each in known.callers):
        raise click.ClickException(
            f"{name} is already in {callers_file}; for another key: broker callers rotate {name}"
        )
    key = new_key()
    stanza = caller.stanza(None if caller.is_workload else hash_key(key))
    try:
        parse_callers(stanza)
    except CallersFileError as error:
        raise click.ClickException("; ".join(error.problems)) from error
    if not caller.is_workload:
        _print_key(name, key, key_file)
    holds = "it holds no secret" if caller.is_workload else "it holds the key's hash only"
    is_first = known is not None and not known.callers
    _print_stanza(stanza, callers_file, holds, is_first=is_first)


@callers.command(short_help="Make another key for an existing caller.")
@click.argument("name")
@_key_file_option
@_callers_file_option
def rotate(name: str, key_file: Path | None, callers_file: Path | None) -> None:
    """Make another key for the caller NAME, in addition to its existing keys.

    The first line of stdout is the key, which is shown only once. The `keys:` line, which
    replaces the one in the callers file, follows after an empty line. Delete the old hash once
    NAME uses the new key everywhere.
    """
    if callers_file is None:
        raise click.ClickException("set BROKER_CALLERS_FILE, or give --callers-file")
    known = {caller.name: caller for caller in _read(callers_file).callers}
    if name not in known:
        raise click.ClickException(f"{callers_file} has no {name!r}; {suggest(name, known)}")
    key = new_key()
    hashes = [*sorted(map(format_digest, known[name].key_hashes)), hash_key(key)]
    _print_key(name, key, key_file)
    click.echo(
        f"\nThe keys of {name} for {callers_file} (the last is the new one; delete the others once "
        "it is used everywhere):",
        err=True,
    )
    click.echo(f"    keys: {flow_list(hashes)}")


@callers.command("hash")
def hash_command() -> None:
    """Print the hash of an existing key.

    Prompts for the key without showing it, or reads it from stdin.
    """
    if _stdin().isatty():
        key = click.prompt("Key", hide_input=True, err=True)
    else:
        given = _stdin().buffer.read(MAX_FILE_BYTES)
        key = given.decode("ascii", "replace").removesuffix("\n").removesuffix("\r")
    _reject(filter(None, [key_fault(key)]))
    click.echo(hash_key(key))


@callers.command(short_help="List the callers in a callers file, or its problems.")
@click.argument(
    "file",
    envvar="BROKER_CALLERS_FILE",
    type=click.Path(path_type=Path, allow_dash=True),
    required=False,
)
@click.option(
    "--google-scopes",
    envvar="GOOGLE_SCOPES",
    show_envvar=True,
    default="",
    metavar="SCOPES",
    help="The scopes that the broker may request; a note names the callers' scopes beyond them.",
)
def check(file: Path | None, google_scopes: str) -> None:
    """Check a callers file: list its callers, or all of its problems.

    FILE is by default the one in BROKER_CALLERS_FILE; - is stdin. Exits with 1 if the broker would
    reject the file.
    """
    if file is None:
        raise click.ClickException("name a FILE, or set BROKER_CALLERS_FILE")
    found = _read(file)
    for line in _table(found.callers):
        click.echo(line)
    allowed = (*ALWAYS_REQUESTED, *google_scopes.split()) if google_scopes.strip() else ()
    for concern in find_warnings(found, allowed):
        click.echo(f"Note: {concern}", err=True)


def _reject(faults: Iterable[str]) -> None:
    text = "; ".join(faults)
    if text:
        raise click.ClickException(text)


def _stdin() -> TextIO:
    """Return stdin. Raises `ClickException` if it is closed (`<&-`)."""
    stdin: TextIO | None = sys.stdin
    if stdin is None:
        raise click.ClickException("stdin is closed")
    return stdin


def _read(file: Path) -> CallersFile:
    """Read the file. Raises `ClickException` with a line for each problem."""
    try:
        if str(file) == "-":
            return parse_callers(decode_callers(_stdin().buffer.read(MAX_FILE_BYTES + 1)))
        return read_callers(file)
    except CallersFileError as error:
        if len(error.problems) == 1:
            problem = error.problems[0]
            place = "" if str(file) in problem else f"{file}: "
            raise click.ClickException(place + problem) from error
        listed = "".join(f"\n  - {problem}" for problem in error.problems)
        raise click.ClickException(f"{file} has {len(error.problems)} problems:{listed}") from error


def _known_callers(file: Path | None) -> CallersFile | None:
    """Return the callers in the file; none if it is missing or empty, None if it has problems."""
    try:
        is_empty = file is None or file.stat().st_size == 0
    except OSError:
        is_empty = True
    if file is None or is_empty:
        return CallersFile(())
    try:
        return read_callers(file)
    except CallersFileError:
        click.echo(f"Note: {file} has problems; see: broker callers check {file}", err=True)
        return None


def _print_key(name: str, key: str, key_file: Path | None) -> None:
    if key_file is not None:
        _write_key(key, key_file)
        click.echo(f"The key of {name} is in {key_file}; pass it on and delete it.", err=True)
        return
    click.echo(
        f"The key of {name}, which is shown only once. Put it where {name} keeps its secrets; "
        f"{name} sends it as `Authorization: Bearer <key>`:",
        err=True,
    )
    click.echo(key)
    click.echo()


def _write_key(key: str, key_file: Path) -> None:
    # No newline at the end: a program that reads the file may send it too.
    try:
        descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(key)
    except OSError as error:
        raise click.ClickException(f"can't write {key_file}: {error.strerror}") from error


def _print_stanza(stanza: str, callers_file: Path | None, holds: str, *, is_first: bool) -> None:
    where = callers_file or "the file that BROKER_CALLERS_FILE names"
    note = "" if is_first else " below `callers:`, indented like the others"
    click.echo(
        f"The stanza for {where}{note}; {holds}. A running broker reads the file again:",
        err=True,
    )
    click.echo(stanza if is_first else stanza.partition("\n")[2], nl=False)


def _credentials_of(caller: Caller) -> str:
    """Return the number of keys, and `JWT` for a workload."""
    keys = str(len(caller.key_hashes))
    if caller.workload is None:
        return keys
    return f"{keys}+JWT" if caller.key_hashes else "JWT"


def _rate_of(caller: Caller) -> str:
    """Return requests per second and burst."""
    limit = caller.rate_limit
    return f"{limit.requests_per_second:g}/s,{limit.burst}" if limit else "-"


def _table(callers: Iterable[Caller]) -> list[str]:
    rows = [
        (
            caller.name,
            _credentials_of(caller),
            ",".join(permission for permission in Permission if caller.may(permission)),
            _rate_of(caller),
            " ".join(caller.users),
            " ".join(scope.removeprefix(PREFIX) for scope in caller.scopes) or "-",
        )
        for caller in callers
    ]
    return format_table(("CALLER", "KEYS", "MAY", "RATE", "USERS", "SCOPES"), rows)
