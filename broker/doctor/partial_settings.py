"""Settings of which some may be wrong: what the others describe can still be looked at."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from broker.settings import Settings, SettingsError, load_settings

_NAME = re.compile(r"\b(?:BROKER|GOOGLE|DATABASE|SECRET|VAULT|AWS)_[A-Z_]+[A-Z]\b")
_FILE = "_FILE"

_PLACEHOLDERS = {
    "BROKER_WEBHOOK_SECRET": "whsec_" + "placeholder+" * 4,
    "BROKER_WEBHOOK_URL": "https://placeholder.invalid/",
    "BROKER_CALLERS_FILE": "placeholder",
    "DATABASE_URL": "postgresql://placeholder.invalid/placeholder",
    "GOOGLE_CLIENT_ID": "placeholder",
    "GOOGLE_CLIENT_SECRET": "placeholder",
    "GOOGLE_CREDENTIALS_FILE": "placeholder",
    "GOOGLE_REDIRECT_URI": "https://placeholder.invalid/auth/google/callback",
    "GOOGLE_SCOPES": "openid",
    "SECRET_KEY": "placeholder-placeholder-placeholder",
    "VAULT_ADDR": "https://placeholder.invalid",
    "VAULT_ROLE": "placeholder",
    "VAULT_ROLE_ID": "placeholder",
    "VAULT_SECRET_ID": "placeholder",
    "VAULT_TOKEN": "placeholder",
}
"""What has no default. Nothing that depends on one of these is ever looked at."""

_MOST_ROUNDS = 5
"""A setting that is put right may bring another to light, such as another source's."""


@dataclass(frozen=True, slots=True)
class PartialSettings:
    """All that is wrong, and settings in which the wrong ones are placeholders."""

    problems: tuple[str, ...]
    broken: frozenset[str]
    """The names of the settings that can't be used."""
    settings: Settings | None
    """None if nothing at all can be made of the environment."""

    def broken_among(self, *beginnings: str) -> str | None:
        """The names of broken settings that begin like this, for a sentence."""
        return " and ".join(sorted(n for n in self.broken if n.startswith(beginnings))) or None


def read_settings(environ: Mapping[str, str]) -> PartialSettings:
    """Load what can be loaded; never raises."""
    problems: tuple[str, ...] = ()
    broken: set[str] = set()
    patched = dict(environ)
    for _ in range(_MOST_ROUNDS):
        try:
            return PartialSettings(problems, frozenset(broken), load_settings(patched))
        except SettingsError as error:
            problems = problems or tuple(error.problems)
            names = {name for problem in error.problems for name in _names_in(problem)}
        broken |= names
        for name in names:
            patched.pop(name + _FILE, None)
            patched[name] = _PLACEHOLDERS.get(name, "")
    return PartialSettings(problems, frozenset(broken), None)


def _names_in(problem: str) -> list[str]:
    """The settings that a problem is about: all that it names before its explanation begins."""
    subject = re.split(r" must | is missing|: | holds | has ", problem, maxsplit=1)[0]
    return [_setting(name) for name in _NAME.findall(subject)]


def _setting(name: str) -> str:
    is_own_name = name in ("BROKER_CALLERS_FILE", "GOOGLE_CREDENTIALS_FILE")
    return name if is_own_name else name.removesuffix(_FILE)
