"""Parsers of the operator's configuration: callers file, credentials.json, environment."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from broker.callers.callers_file import CallersFile, CallersFileError, decode_callers, parse_callers
from broker.callers.file_warnings import find_warnings
from broker.callers.keys import hash_key
from broker.database.connector import Hosts
from broker.secret import Secret
from broker.secret_sources.local_sources import CredentialsFileSource
from broker.secret_sources.source import SourceError
from broker.settings import FileSource, SettingsError, load_settings, signing_key
from broker.settings.urls import is_database_url
from fuzz.target import Target, must, of_bytes, run_sync

PLANTED = "pLaNtEdSeCrEt-5e5dd0c7a1"  # pragma: allowlist secret
"""Stands for a secret; output that contains it shows a secret."""

_CALLERS = f"""\
callers:
  calendar-sync:
    keys: ["{hash_key("tb_any")}"]
    workload:
      issuer: https://kubernetes.default.svc
      audience: token-broker
      subject: system:serviceaccount:prod:calendar-sync
    can: [tokens:read, links:create, grants:read, grants:revoke]
    scopes: [https://www.googleapis.com/auth/calendar.readonly]
    users: ["*"]
    return_to: [https://app.example.com/settings]
    require_confirmation: false
    display_name: Calendar
"""
_PLANTED_KEY = f"{PLANTED}XyZ0123456789abcdEF"
"""As long as a key; a much shorter text may be quoted."""
_ISSUERS = """\
callers: {a: {keys: ["tb_%s"], can: [tokens:read], users: ["a*"], subject_required: true}}
issuers:
  https://issuer.example:
    jwks_url: https://issuer.example/keys
    algorithms: [RS256, ES256]
    users: {audience: google-tokens, claim: email}
"""


def file_targets() -> list[Target]:
    """Return the targets that read files or the environment."""
    samples = [_CALLERS.encode(), (_ISSUERS % _PLANTED_KEY).encode(), b"a: &a [*a, <<: *a]"]
    return [
        of_bytes("callers file", _check_file, samples),
        of_bytes("credentials.json", _credentials_check(), _CREDENTIALS),
        of_bytes("settings", _check_settings, _ENVIRONMENTS),
        of_bytes("database hosts", _check_hosts, _ADDRESSES),
        of_bytes("webhook secret", _check_webhook_secret, _WEBHOOK_SECRETS),
    ]


def _check_file(data: bytes) -> None:
    try:
        file = parse_callers(decode_callers(data))
    except CallersFileError as error:
        must(error.problems and all(error.problems), "refused without a message")
        must(all("\n" not in problem for problem in error.problems), "more than one line")
        must(_PLANTED_KEY not in "".join(error.problems), "a key is shown")
        return
    _check_callers(file)


def _check_callers(file: CallersFile) -> None:
    find_warnings(file, ("openid",))
    file.issuers()
    for caller in file.callers:
        must(
            caller.name and caller.users and caller.permissions, "a caller without required fields"
        )
        must(caller.key_hashes or caller.workload, "a caller that can't authenticate")


_CREDENTIALS = [
    b'{"web": {"client_id": "c.apps.googleusercontent.com", "client_secret": "%s"}}'
    % PLANTED.encode(),
    b'{"installed": {"client_id": "c", "client_secret": "%s", "redirect_uris": ["http://a"]}}'
    % PLANTED.encode(),
    b'{"type": "service_account", "private_key": "%s"}' % PLANTED.encode(),
    b'\xef\xbb\xbf{"refresh_token": null}',
]


def _credentials_check() -> Callable[[bytes], None]:
    path = Path(tempfile.mkdtemp(prefix="fuzz-")) / "credentials.json"
    source = CredentialsFileSource(FileSource(path))

    def check(data: bytes) -> None:
        path.write_bytes(data)
        try:
            # Not `read`, which uses a thread per call.
            client = source.read_blocking()
        except SourceError as error:
            must(PLANTED not in str(error), "a secret is shown")
            must(
                error.__cause__ is None and error.__context__ is None,
                "an exception keeps the file's contents",
            )
            return
        must(client.client_id and client.client_secret, "an incomplete client")
        must(PLANTED not in repr(client), "a secret is shown")

    return check


_ENVIRONMENT = {
    "GOOGLE_CLIENT_ID": "client",
    "GOOGLE_CLIENT_SECRET": PLANTED,
    "GOOGLE_REDIRECT_URI": "http://127.0.0.1:8000/auth/google/callback",
    "GOOGLE_SCOPES": "https://www.googleapis.com/auth/calendar",
    "DATABASE_URL": f"postgresql://broker:{PLANTED}@127.0.0.1:5432/broker",
    "SECRET_KEY": f"{PLANTED}-{PLANTED}",
    "BROKER_CALLERS_FILE": "/etc/broker/callers.yaml",
}
_KEY = b"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
_ENVIRONMENTS = [
    b"GOOGLE_REDIRECT_URI=https://app.example.com/auth/google/callback, http://[::1]:8000/a",
    b"BROKER_PUBLIC_LISTEN=0.0.0.0:8000\nBROKER_INTERNAL_LISTEN=[::]:8001\nBROKER_OPS_LISTEN=:0",
    b"DATABASE_URL=postgresql://u:p@a:5432,b/db?target_session_attrs=primary&sslmode=require",
    b"GOOGLE_DISCOVERY_URL=https://accounts.google.com/.well-known/openid-configuration",
    b"BROKER_SECRET_SOURCE=vault\nVAULT_ADDR=https://a:8200,http://127.0.0.1\nVAULT_TOKEN=x",
    b"BROKER_WEBHOOK_URL=https://app.example.com/hooks\nBROKER_WEBHOOK_SECRET=whsec_%b" % _KEY,
    b"SECRET_KEY=a,b\nBROKER_AUDIT_RETENTION_DAYS=400\nBROKER_LOG_LEVEL=debug",
    b"SECRET_KEY_FILE=/nowhere/at/all\nSECRET_KEY=",
]


def _check_settings(data: bytes) -> None:
    lines = data.decode("utf-8", "surrogateescape").replace("\x00", "").splitlines()
    pairs = (line.partition("=") for line in lines)
    changes = {name: value for name, _, value in pairs if name}
    try:
        settings = load_settings(_ENVIRONMENT | changes)
    except SettingsError as error:
        must(
            error.problems and all(each.text for each in error.problems),
            "refused without a message",
        )
        must(PLANTED not in str(error), "a secret is shown")
        return
    must(PLANTED not in repr(settings), "a secret is shown")


_ADDRESSES = [
    b"postgresql://u:p@a:5432,b:5433,[::1]:1/db?target_session_attrs=read-write",
    b"postgresql://a,b/db?target_session_attrs=primary&host=/tmp",
    b"postgresql:///db?host=/var/run/postgresql",
    b"postgres://u:p%40@a/db#x",
]


def _check_hosts(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    if not is_database_url(text):
        return
    tried: list[str] = []

    async def way(url: str) -> object:
        tried.append(url)
        must(is_database_url(url), "a URL is split into invalid addresses")
        raise OSError("nobody there")

    hosts = Hosts(Secret(text), on_moved=lambda: None)
    # Each host is tried once.
    _fails(hosts, way)
    must(tried and len(tried) <= text.count(",") + 1, "hosts are lost or invented")


def _fails(hosts: Hosts, way: Callable[[str], object]) -> None:
    for url in hosts._urls:
        try:
            run_sync(way(url.reveal()))  # type: ignore[arg-type]
        except OSError:
            continue


_WEBHOOK_SECRETS = [
    b"whsec_" + _KEY,
    b"whsec_",
    _KEY,
]


def _check_webhook_secret(data: bytes) -> None:
    try:
        key = signing_key(Secret(data.decode("utf-8", "surrogateescape")))
    except ValueError as error:
        must(str(error) == "not a webhook secret", "a refusal quotes")
        return
    must(24 <= len(key) <= 64, "a key of another length")
