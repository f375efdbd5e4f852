"""The stanza of a new caller: its options checked, and the YAML that they make."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from broker.callers import rules
from broker.callers.checked_yaml import is_plain_text
from broker.callers.model import Permission


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCaller:
    """A caller as the options of `broker callers new` describe it."""

    name: str
    can: Sequence[str]
    scopes: Sequence[str]
    users: Sequence[str]
    return_to: Sequence[str]
    require_confirmation: bool
    display_name: str | None
    subject_required: bool
    requests_per_second: float | None
    burst: int | None
    workload: Mapping[str, str | None]
    """Issuer, audience and subject; all None for a caller with a key."""

    @property
    def is_workload(self) -> bool:
        return any(part is not None for part in self.workload.values())

    def faults(self) -> list[str]:
        """Return a line for each problem of the options."""
        checks: list[tuple[str, Callable[[str], str | None], Iterable[str]]] = [
            ("NAME", rules.name_fault, [self.name]),
            ("--can", rules.permission_fault, self.can),
            ("--scope", rules.scope_fault, self.scopes),
            ("--user", rules.pattern_fault, self.users),
            ("--return-to", rules.return_to_fault, self.return_to),
        ]
        faults = [
            f"{option}: {fault}"
            for option, find_fault, values in checks
            for value in values
            if (fault := find_fault(value)) is not None
        ]
        if not self.can:
            faults.append("--can is missing: any of " + ", ".join(Permission))
        if not self.users:
            faults.append("--user is missing: for all users, --user '*'")
        if not self.scopes and rules.NEED_SCOPES.intersection(self.can):
            faults.append("--scope is missing: a Google scope that its tokens may have")
        if self.burst is not None and self.requests_per_second is None:
            faults.append("--burst needs --requests-per-second")
        return [*faults, *self._workload_faults()]

    def _workload_faults(self) -> list[str]:
        if not self.is_workload:
            return []
        faults = []
        for part, text in self.workload.items():
            find_fault = rules.issuer_fault if part == "issuer" else rules.text_fault
            if text is None:
                faults.append(f"--workload-{part} is missing")
            elif (fault := find_fault(text)) is not None:
                faults.append(f"--workload-{part}: {fault}")
        return faults

    def stanza(self, key_hash: str | None) -> str:
        """Return a callers file with this caller alone; empty settings are left out."""
        credential = {"workload": self.workload} if key_hash is None else {"keys": [key_hash]}
        rate = {"requests_per_second": self.requests_per_second, "burst": self.burst}
        settings: dict[str, object] = {
            **credential,
            "can": self.can,
            "scopes": self.scopes,
            "users": self.users,
            "return_to": self.return_to,
            "require_confirmation": self.require_confirmation,
            "display_name": self.display_name,
            "subject_required": self.subject_required or None,
            "rate_limit": {part: n for part, n in rate.items() if n is not None},
        }
        lines = ["callers:", f"  {self.name if is_plain_text(self.name) else _text(self.name)}:"]
        lines += [
            f"    {setting}: {_flow(value)}"
            for setting, value in settings.items()
            if isinstance(value, bool) or value
        ]
        return "\n".join(lines) + "\n"


def flow_list(values: Iterable[str]) -> str:
    """Return a YAML list in one line."""
    return "[" + ", ".join(map(_text, values)) + "]"


def _flow(value: object) -> str:
    """Return a value in one line of YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_text(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return flow_list(value)
    return _text(value)


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
