"""The names of all settings, and those that look like one but aren't."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches

SECRET_NAMES = frozenset(
    {
        "GOOGLE_CLIENT_ID",
        "GOOGLE_CLIENT_SECRET",
        "DATABASE_URL",
        "DATABASE_REPLICA_URL",
        "SECRET_KEY",
        "BROKER_WEBHOOK_SECRET",
        "VAULT_TOKEN",
        "VAULT_ROLE_ID",
        "VAULT_SECRET_ID",
    }
)
"""Settings that may also come from a file named by `<NAME>_FILE`."""

SETTING_NAMES = SECRET_NAMES | {
    "BROKER_ACCESS_TOKENS",
    "BROKER_AUDIT_RETENTION_DAYS",
    "BROKER_CALLERS_FILE",
    "BROKER_INTERNAL_LISTEN",
    "BROKER_KEY_SOURCE",
    "BROKER_LOG_LEVEL",
    "BROKER_OPS_LISTEN",
    "BROKER_PUBLIC_LISTEN",
    "BROKER_SECRET_SOURCE",
    "BROKER_STALE_TOKENS_AT_MOST",
    "BROKER_TRUSTED_PROXIES",
    "BROKER_WEBHOOK_URL",
    "GOOGLE_CREDENTIALS_FILE",
    "GOOGLE_DISCOVERY_URL",
    "GOOGLE_REDIRECT_URI",
    "GOOGLE_SCOPES",
    "VAULT_ADDR",
    "VAULT_AUTH",
    "VAULT_KV_MOUNT",
    "VAULT_KV_PATH",
    "VAULT_NAMESPACE",
    "VAULT_ROLE",
}
"""All settings, without the `<NAME>_FILE` of secrets."""

_KNOWN = SETTING_NAMES | {f"{name}_FILE" for name in SECRET_NAMES}

_OURS = re.compile(r"(?:BROKER|GOOGLE|VAULT)_[A-Za-z0-9_-]{1,80}")
_OTHER_PROGRAMS = re.compile(
    r"GOOGLE_(?:APPLICATION|CLOUD|API|EXTERNAL_ACCOUNT)_.*"
    # What Vault's own client and server read, and what hvac reads of it.
    r"|VAULT_(?:CACERT(?:_BYTES)?|CAPATH|CLIENT_(?:CERT|KEY|TIMEOUT)|SKIP_VERIFY|TLS_SERVER_NAME"
    r"|SRV_LOOKUP|RATE_LIMIT|MAX_RETRIES|DISABLE_REDIRECTS|(?:HTTP_)?PROXY(?:_ADDR)?|HEADERS|MFA"
    r"|WRAP_TTL|FORMAT|DETAILED|OUTPUT_\w+|LOG_\w+|CLI_\w+|CONFIG_PATH|LICENSE(?:_PATH)?"
    r"|(?:AGENT|API|CLUSTER|REDIRECT)_ADDR|(?:DEV|RAFT|UI|UNSEAL|SEAL)_\w+)"
)


def suspicious_names(environ: Mapping[str, str]) -> Iterator[str]:
    """A line for each variable that is set, looks like a setting, and is none. No values."""
    for name, value in sorted(environ.items()):
        if name in _KNOWN or not value.strip() or not _OURS.fullmatch(name):
            continue
        if _OTHER_PROGRAMS.fullmatch(name) or _is_service_link(name, environ):
            continue
        close = get_close_matches(name.upper(), sorted(_KNOWN), n=1, cutoff=0.8)
        suggestion = f"; did you mean {close[0]}?" if close else ""
        yield f"{name} is not a setting of this release, so it has no effect{suggestion}"


def _is_service_link(name: str, environ: Mapping[str, str]) -> bool:
    """Whether Kubernetes set it, for a Service whose name begins like a setting."""
    link = re.fullmatch(r"(.+?)_(?:SERVICE_(?:HOST|PORT)|PORT)(?:_\w+)?", name)
    return link is not None and f"{link[1]}_SERVICE_HOST" in environ
