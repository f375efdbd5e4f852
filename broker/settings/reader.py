"""Reads one environment, value by value, and collects all that is wrong with it."""

from collections.abc import Mapping
from pathlib import Path

from broker.secret import Secret
from broker.settings.secret_setting import SecretSetting, UnreadableSecretError


class SettingsError(Exception):
    """The environment can't be used; `problems` has one actionable line each, free of secrets."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Reader:
    """Notes problems instead of raising them; none shows a value that could be a secret."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._problems: list[str] = []

    def raise_problems(self) -> None:
        """Raises `SettingsError` if there is anything wrong."""
        if self._problems:
            raise SettingsError(self._problems)

    def text(self, name: str) -> str:
        """What a setting says; nothing, if it is not set."""
        value = self._environ.get(name, "").strip()
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            self.problem(f"{name} is not UTF-8 text")
            return ""
        return value

    def problem(self, text: str) -> None:
        """Note what is wrong."""
        self._problems.append(text)

    def secret(self, name: str, hint: str) -> SecretSetting:
        """A secret from `name` or the file `<name>_FILE`; both at once is a mistake."""
        value, path = self.text(name), self.text(f"{name}_FILE")
        if value and path:
            self.problem(f"{name} and {name}_FILE are both set; keep one")
        elif not value and not path:
            self.problem(f"{name} is missing: {hint} (or put it in a file, {name}_FILE)")
        if not path:
            return SecretSetting(name, value=Secret(value))
        setting = SecretSetting(name, path=Path(path))
        try:
            setting.read()
        except UnreadableSecretError as error:
            self.problem(str(error))
        return setting

    def secret_now(self, name: str, hint: str) -> Secret:
        """The same, read; empty if something is wrong with it."""
        problems_before = len(self._problems)
        setting = self.secret(name, hint)
        return Secret("") if len(self._problems) > problems_before else setting.read()
