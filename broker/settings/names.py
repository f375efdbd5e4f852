"""The names of all settings, and those that look like one but aren't."""

SECRET_NAMES = frozenset(
    {
        "GOOGLE_CLIENT_ID",
        "GOOGLE_CLIENT_SECRET",
        "DATABASE_URL",
        "DATABASE_REPLICA_URL",
        "SECRET_KEY",
        "VAULT_TOKEN",
        "VAULT_ROLE_ID",
        "VAULT_SECRET_ID",
    }
)
"""Settings that may also come from a file named by `<NAME>_FILE`."""
