"""Callers files for tests: a valid one, and ways to make it invalid."""

from broker.callers.keys import hash_key

KEY = "tb_plantedKeyThatNoMessageMayShow0123456789ABC"  # pragma: allowlist secret
OTHER_KEY = "tb_anotherPlantedKey0123456789abcdefghijklmnop"  # pragma: allowlist secret
SCOPE = "https://www.googleapis.com/auth/calendar.readonly"

CONTRACT = f"""\
callers:
  calendar-sync:
    keys: ["{hash_key(KEY)}"]
    workload:
      issuer: https://kubernetes.default.svc
      audience: token-broker
      subject: system:serviceaccount:prod:calendar-sync
    can: [tokens:read, links:create, grants:read, grants:revoke]
    scopes: [{SCOPE}]
    users: ["*"]
    return_to: [https://app.example.com/settings]
    require_confirmation: false
"""


def stanza(name: str = "calendar-sync", /, **settings: str | None) -> str:
    """Return a caller with the given fields, as YAML text; None omits one."""
    values: dict[str, str | None] = {
        "keys": f'["{hash_key(KEY)}"]',
        "can": "[tokens:read]",
        "scopes": f"[{SCOPE}]",
        "users": '["*"]',
        **settings,
    }
    lines = [f"    {name}: {value}" for name, value in values.items() if value is not None]
    return f"  {name}:\n" + "\n".join(lines) + "\n"


def callers_file(*stanzas: str) -> str:
    """Return a whole file."""
    return "callers:\n" + "".join(stanzas or [stanza()])
