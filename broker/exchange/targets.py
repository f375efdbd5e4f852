"""Where a token is meant to be used (`resource`, `audience`): at Google, or it is not to be had."""

from urllib.parse import urlsplit

_GOOGLES = ("googleapis.com", "google.com")


def is_google(target: str) -> bool:
    """Whether this names Google or an API of Google's: an https address, or a host alone."""
    try:
        parts = urlsplit(target if "//" in target else f"https://{target}")
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        return False
    if parts.scheme != "https" or "#" in target or "@" in parts.netloc:
        return False
    return any(host == name or host.endswith(f".{name}") for name in _GOOGLES)
