"""`broker callers`: makes callers' keys and checks the callers file; never writes that file.

What a program may want goes to stdout, what a person should know to stderr.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

import click

from broker.callers import rules
from broker.callers.callers_file import (
    MAX_FILE_BYTES,
    CallersFile,
    CallersFileError,
    decode_callers,
    parse_callers,
)
from broker.callers.concerns import find_concerns
from broker.callers.keys import format_digest, hash_key, key_fault, new_key
from broker.callers.model import Caller, Permission
from broker.callers.registry import read_callers
from broker.callers.walker import suggest
from broker.callers.yaml_nodes import is_plain_text
from broker.settings import IDENTITY_SCOPES

_GOOGLE_SCOPE_PREFIX = "https://www.googleapis.com/auth/"

_callers_file_option = click.option(
    "--callers-file",
    envvar="BROKER_CALLERS_FILE",
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="The callers file in use; only read.",
)
_key_file_option = click.option(
    "--key-file",
    type=click.Path(path_type=Path),
    help="Write the key to this new file (mode 0600) instead of printing it.",
)


@click.group()
def callers() -> None:
    """Callers: the services that may ask for tokens."""


@callers.command()
@click.argument("name")
@click.option(
    "--can",
    multiple=True,
    metavar="PERMISSION",
    help="What it may do, one of: " + ", ".join(Permission) + ". Repeat, or separate by commas.",
)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="SCOPE",
    help="A Google scope that its tokens may have. Repeat for several.",
)
@click.option(
    "--user",
    "users",
    multiple=True,
    metavar="PATTERN",
    help="The users that it may act for, as a shell-style pattern; '*' is everyone. Repeatable.",
)
@click.option(
    "--return-to",
    multiple=True,
    metavar="URL",
    help="Where a browser may be sent back to after a consent; compared exactly. Repeatable.",
)
@click.option(
    "--require-confirmation",
    is_flag=True,
    help="What its links bring stays out of reach until it confirms whose browser it was.",
)
@click.option(
    "--display-name",
    metavar="TEXT",
    help="What people are shown as its name when it asks them to connect.",
)
@click.option(
    "--subject-required",
    is_flag=True,
    help="It gets tokens only against a JWT of the user's own (POST /oauth/token).",
)
@click.option(
    "--requests-per-second",
    type=click.FloatRange(0.01, 1_000_000),
    help="How much it may ask for on average, of each replica. Without it, there is no limit.",
)
@click.option(
    "--burst",
    type=click.IntRange(1, 1_000_000),
    help="How much at once after a rest; as much as in a second, unless given.",
)
@click.option(
    "--workload-issuer",
    metavar="URL",
    help="No key: it proves itself by a JWT of this OpenID Connect issuer. With the two below.",
)
@click.option("--workload-audience", metavar="TEXT", help="What the JWT's `aud` must have.")
@click.option("--workload-subject", metavar="TEXT", help="What the JWT's `sub` must be.")
@_key_file_option
@_callers_file_option
def new(
    *,
    name: str,
    key_file: Path | None,
    callers_file: Path | None,
    workload_issuer: str | None,
    workload_audience: str | None,
    workload_subject: str | None,
    requests_per_second: float | None,
    burst: int | None,
    **policy: Any,
) -> None:
    """Make a key for the caller NAME and print the stanza to paste.

    \b
    The first line of stdout is the key, shown only this once. After a blank
    line follows the stanza for the callers file, which holds the key's hash.
    With --key-file, stdout is the stanza alone; so it is for a workload,
    which has no key.

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
    policy["can"] = [word for text in policy["can"] for word in text.replace(",", " ").split()]
    policy["scopes"] = [scope for text in policy["scopes"] for scope in text.split()]
    workload = {
        "issuer": workload_issuer,
        "audience": workload_audience,
        "subject": workload_subject,
    }
    has_key = not any(part is not None for part in workload.values())
    faults = _faults(name, policy["can"], policy["scopes"], policy["users"], policy["return_to"])
    if requests_per_second is not None:
        given = {"requests_per_second": requests_per_second, "burst": burst}
        policy["rate_limit"] = {part: n for part, n in given.items() if n is not None}
    elif burst is not None:
        faults.append("--burst comes with --requests-per-second")
    _refuse(faults if has_key else [*faults, *_workload_faults(workload, key_file)])
    known = _known_callers(callers_file)
    if known is not None and any(caller.name == name for caller in known.callers):
        raise click.ClickException(
            f"{name} is already in {callers_file}; for another key: broker callers rotate {name}"
        )
    key = new_key()
    credential = {"keys": [hash_key(key)]} if has_key else {"workload": workload}
    stanza = _stanza(name, {**credential, **policy})
    try:
        parse_callers(stanza)
    except CallersFileError as error:
        raise click.ClickException("; ".join(error.problems)) from error
    if has_key:
        _hand_over_key(name, key, key_file)
    holds = "it holds the key's hash only" if has_key else "it holds no secret"
    is_first = known is not None and not known.callers
    _hand_over_stanza(stanza, callers_file, holds, is_first=is_first)


@callers.command()
@click.argument("name")
@_key_file_option
@_callers_file_option
def rotate(name: str, key_file: Path | None, callers_file: Path | None) -> None:
    """Make another key for the caller NAME, beside those it has.

    The first line of stdout is the key, shown only this once; then follows the `keys:` line that
    replaces the one in the callers file. Once NAME uses the new key everywhere, delete the old
    hash.
    """
    if callers_file is None:
        raise click.ClickException("set BROKER_CALLERS_FILE, or give --callers-file")
    known = {caller.name: caller for caller in _read(callers_file).callers}
    if name not in known:
        raise click.ClickException(f"{callers_file} has no {name!r}; {suggest(name, known)}")
    key = new_key()
    hashes = [*sorted(map(format_digest, known[name].key_hashes)), hash_key(key)]
    _hand_over_key(name, key, key_file)
    click.echo(
        f"\nIn {callers_file}, the keys of {name} (the last is the new one; delete the others "
        "once it is used everywhere):",
        err=True,
    )
    click.echo(f"    keys: {_flow(hashes)}")


@callers.command("hash")
def hash_command() -> None:
    """Print the hash of a key that exists already.

    Asks for the key without showing it, or reads it from stdin.
    """
    if _stdin().isatty():
        key = click.prompt("Key", hide_input=True, err=True)
    else:
        given = _stdin().buffer.read(MAX_FILE_BYTES)
        key = given.decode("ascii", "replace").removesuffix("\n").removesuffix("\r")
    _refuse(filter(None, [key_fault(key)]))
    click.echo(hash_key(key))


@callers.command(short_help="List a callers file's callers, or what is wrong with it.")
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
    help="What the broker may ask for; callers' scopes beyond it are pointed out.",
)
def check(file: Path | None, google_scopes: str) -> None:
    """Check a callers file: list its callers, or everything that is wrong with it.

    FILE is the one that BROKER_CALLERS_FILE names, unless given; - is stdin. Exits with 1 if the
    broker would refuse the file.
    """
    if file is None:
        raise click.ClickException("name a FILE, or set BROKER_CALLERS_FILE")
    found = _read(file)
    _print_table(found.callers)
    allowed = (*IDENTITY_SCOPES, *google_scopes.split()) if google_scopes.strip() else ()
    for concern in find_concerns(found, allowed):
        click.echo(f"Note: {concern}", err=True)


def _faults(
    name: str,
    can: Iterable[str],
    scopes: Iterable[str],
    users: Iterable[str],
    return_to: Iterable[str],
) -> list[str]:
    """What is wrong with the options, one line each."""
    checks: list[tuple[str, Callable[[str], str | None], Iterable[str]]] = [
        ("NAME", rules.name_fault, [name]),
        ("--can", rules.permission_fault, can),
        ("--scope", rules.scope_fault, scopes),
        ("--user", rules.pattern_fault, users),
        ("--return-to", rules.return_to_fault, return_to),
    ]
    faults = [
        f"{option}: {fault}"
        for option, find_fault, values in checks
        for value in values
        if (fault := find_fault(value)) is not None
    ]
    if not can:
        faults.append("--can is missing: any of " + ", ".join(Permission))
    if not users:
        faults.append("--user is missing: for everyone, --user '*'")
    if not scopes and rules.NEED_SCOPES.intersection(can):
        faults.append("--scope is missing: a Google scope that it may get tokens for")
    return faults


def _workload_faults(workload: Mapping[str, str | None], key_file: Path | None) -> list[str]:
    """What is wrong with the options of a caller that is to have no key."""
    rule_of = {"issuer": rules.issuer_fault}
    faults = []
    for part, text in workload.items():
        fault = rule_of.get(part, rules.text_fault)(text) if text is not None else "is missing"
        if fault is not None:
            faults.append(f"--workload-{part}{':' if text is not None else ''} {fault}")
    if key_file is not None:
        faults.append("--key-file: a workload has no key")
    return faults


def _refuse(faults: Iterable[str]) -> None:
    text = "; ".join(faults)
    if text:
        raise click.ClickException(text)


def _stdin() -> TextIO:
    """Raises `ClickException` where there is none (`<&-`)."""
    stdin: TextIO | None = sys.stdin
    if stdin is None:
        raise click.ClickException("stdin is closed")
    return stdin


def _read(file: Path) -> CallersFile:
    """Any failure ends the command, with each problem on a line."""
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
    """What is in the callers file already; nothing, if there is none or it is empty."""
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


def _hand_over_key(name: str, key: str, key_file: Path | None) -> None:
    if key_file is not None:
        _write_key(key, key_file)
        click.echo(f"The key of {name} is in {key_file}; hand it over and delete it.", err=True)
        return
    click.echo(
        f"The key of {name}, shown only this once. Put it where {name} keeps its secrets; it "
        "sends it as `Authorization: Bearer <key>`:",
        err=True,
    )
    click.echo(key)
    click.echo()


def _write_key(key: str, key_file: Path) -> None:
    # No newline at the end: whoever reads the file may well send it along.
    try:
        descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(key)
    except OSError as error:
        raise click.ClickException(f"can't write {key_file}: {error.strerror}") from error


def _hand_over_stanza(
    stanza: str, callers_file: Path | None, holds: str, *, is_first: bool
) -> None:
    where = callers_file or "the file that BROKER_CALLERS_FILE names"
    note = "" if is_first else " below `callers:`, indented as its neighbours"
    click.echo(
        f"The stanza for {where}{note}; {holds}. A running broker notices the change by itself:",
        err=True,
    )
    click.echo(stanza if is_first else stanza.partition("\n")[2], nl=False)


def _stanza(name: str, settings: dict[str, object]) -> str:
    """A whole callers file with one caller; what is empty is left out."""
    lines = ["callers:", f"  {name if is_plain_text(name) else json.dumps(name)}:"]
    for setting, value in settings.items():
        if isinstance(value, bool):
            if value or setting == "require_confirmation":
                lines.append(f"    {setting}: {json.dumps(value)}")
        elif isinstance(value, dict):
            pairs = (f"{part}: {json.dumps(text)}" for part, text in value.items())
            lines.append("    " + setting + ": {" + ", ".join(pairs) + "}")
        elif isinstance(value, list | tuple) and value:
            lines.append(f"    {setting}: {_flow(value)}")
        elif isinstance(value, str):
            lines.append(f"    {setting}: {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def _flow(values: Iterable[str]) -> str:
    return "[" + ", ".join(json.dumps(value, ensure_ascii=False) for value in values) + "]"


def _credentials_of(caller: Caller) -> str:
    """How many keys, and whether a workload's JWT will do."""
    keys = str(len(caller.key_hashes))
    if caller.workload is None:
        return keys
    return f"{keys}+JWT" if caller.key_hashes else "JWT"


def _rate_of(caller: Caller) -> str:
    """Requests a second, and how many at once."""
    limit = caller.rate_limit
    return f"{limit.requests_per_second:g}/s,{limit.burst}" if limit else "-"


def _print_table(callers: Iterable[Caller]) -> None:
    rows = [("CALLER", "KEYS", "MAY", "RATE", "USERS", "SCOPES")]
    rows += [
        (
            caller.name,
            _credentials_of(caller),
            ",".join(permission for permission in Permission if caller.may(permission)),
            _rate_of(caller),
            " ".join(caller.users),
            " ".join(scope.removeprefix(_GOOGLE_SCOPE_PREFIX) for scope in caller.scopes) or "-",
        )
        for caller in callers
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
