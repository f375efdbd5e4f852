"""Reads settings from environment variables, and collects all problems."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from broker.secret import Secret
from broker.settings.configured_secret import ConfiguredSecret, UnreadableSecretError
from broker.settings.parsers import MalformedError
from broker.settings.table import Setting

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SettingProblem:
    """A missing or malformed variable. Neither field shows its value, which may be a secret."""

    name: str
    """The setting (without `_FILE`), or the variable of a library."""
    text: str
    """One line that says what to do."""


class SettingsError(Exception):
    """The environment has problems; the message has a line for each."""

    def __init__(self, problems: Sequence[SettingProblem]) -> None:
        super().__init__("\n".join(problem.text for problem in problems))
        self.problems = tuple(problems)


class Environment:
    """One set of environment variables. Problems are noted instead of raised."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self.problems: list[SettingProblem] = []

    @property
    def broken(self) -> frozenset[str]:
        """The names of the settings that have a problem."""
        return frozenset(problem.name for problem in self.problems)

    def raise_problems(self) -> None:
        """Raise `SettingsError` if there is a problem."""
        if self.problems:
            raise SettingsError(self.problems)

    def note(self, name: str, complaint: str) -> None:
        """Note a problem; the complaint continues the sentence that begins with the name."""
        space = "" if complaint[0] in " ,:=" else " "
        self._add(name, f"{name}{space}{complaint}")

    def is_set(self, setting: Setting[_T]) -> bool:
        """True if the variable, or a secret's file, is set."""
        names = (setting.name, f"{setting.name}_FILE") if setting.is_secret else (setting.name,)
        return any(self._variables.get(name, "").strip() for name in names)

    def text(self, variable: str, *, setting: str = "") -> str:
        """Return a variable's text without surrounding white space; empty if it is not set.

        A problem is noted under the name of the setting, if given.
        """
        value = self._variables.get(variable, "").strip()
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            self._add(setting or variable, f"{variable} is not UTF-8 text")
            return ""
        return value

    def read(self, setting: Setting[_T], *, hint: str = "") -> _T:
        """Return the setting's value, or that of its default if it has a problem.

        `hint` is appended to the complaint that the setting is missing.
        """
        known = len(self.problems)
        text = self._secret(setting)[1] if setting.is_secret else self.text(setting.name)
        if len(self.problems) > known:
            return setting.parse(setting.default)
        try:
            value = setting.parse(text or setting.default)
        except MalformedError as error:
            for complaint in error.complaints:
                self.note(setting.name, complaint)
            return setting.parse(setting.default)
        if setting.required and not (text and value):
            self._note_missing(setting, hint)
        return value

    def read_later(self, setting: Setting[Secret], *, hint: str = "") -> ConfiguredSecret:
        """Return a secret that is read at each use. It is read once now, to note problems."""
        known = len(self.problems)
        configured, text = self._secret(setting)
        if not text and len(self.problems) == known:
            self._note_missing(setting, hint)
        return configured

    def _secret(self, setting: Setting[_T]) -> tuple[ConfiguredSecret, str]:
        """The secret as it is configured, and its current text."""
        name = setting.name
        value, path = self.text(name), self.text(f"{name}_FILE", setting=name)
        if value and path:
            self.note(name, f"and {name}_FILE are both set; keep one")
        if not path:
            return ConfiguredSecret(name, value=Secret(value)), value
        configured = ConfiguredSecret(name, path=Path(path))
        try:
            return configured, configured.read().reveal()
        except UnreadableSecretError as error:
            self._add(name, str(error))
            return configured, ""

    def _note_missing(self, setting: Setting[_T], hint: str) -> None:
        example = f", for example {setting.example}" if setting.example else ""
        file = f" (or put it in a file, {setting.name}_FILE)" if setting.is_secret else ""
        self.note(setting.name, f"is missing: {setting.required}{hint}{example}{file}")

    def _add(self, name: str, text: str) -> None:
        self.problems.append(SettingProblem(name, text))
