"""The callers file: parses YAML into valid callers and issuers, or reports every problem together.

Never guesses: anything unknown, doubled or of the wrong kind is a problem. No message shows a key,
nor anything that may be one.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from yaml.nodes import MappingNode, Node, ScalarNode

from broker.callers import rules
from broker.callers.checked_yaml import (
    Fault,
    Fields,
    NodeChecks,
    Place,
    YamlError,
    line_of,
    quotes_needed,
    read_yaml,
    taken_for,
)
from broker.callers.keys import parse_key_hash
from broker.callers.model import Caller, Permission, RateLimit, Workload
from broker.issuers.model import ALGORITHMS, Issuer, UserRule

MAX_FILE_BYTES = 1024 * 1024
"""The most that a Kubernetes ConfigMap holds; thousands of callers."""

_MAX_PROBLEMS = 100
_CALLER_FIELDS = (
    "keys",
    "workload",
    "can",
    "scopes",
    "users",
    "return_to",
    "require_confirmation",
    "display_name",
    "subject_required",
    "rate_limit",
)
_ISSUER_FIELDS = ("jwks_url", "ca_file", "token_file", "algorithms", "users")
_EXAMPLES = {
    "keys": 'for example ["sha256:<hex>"], as `broker callers new` prints it',
    "can": "any of [" + ", ".join(Permission) + "]",
    "scopes": "for example [https://www.googleapis.com/auth/calendar.readonly]",
    "users": 'for all users, write ["*"]',
    "return_to": "for example [https://app.example.com/settings]",
    "algorithms": "for example [RS256, ES256]",
}
_DIGEST_OF_NOTHING = hashlib.sha256(b"").digest()
_TOO_LARGE = "the file is larger than 1 MiB"


class CallersFileError(Exception):
    """The callers file is invalid; `problems` has one actionable line each, without any key."""

    def __init__(self, problems: Iterable[str]) -> None:
        found = list(problems)
        if len(found) > _MAX_PROBLEMS:
            more = len(found) - _MAX_PROBLEMS
            found[_MAX_PROBLEMS:] = [f"… and {more} more"]
        super().__init__("\n".join(found))
        self.problems = found


@dataclass(frozen=True, slots=True)
class CallersFile:
    """A valid callers file."""

    callers: tuple[Caller, ...]
    configured_issuers: tuple[Issuer, ...] = ()
    """The issuers that `issuers:` describes."""

    def issuers(self) -> tuple[Issuer, ...]:
        """Return the issuers whose JWTs are accepted: callers' or users'."""
        described = {issuer.url: issuer for issuer in self.configured_issuers}
        named = (caller.workload.issuer for caller in self.callers if caller.workload)
        of_callers = {url: described.get(url, Issuer(url)) for url in named}
        of_users = {issuer.url: issuer for issuer in self.configured_issuers if issuer.users}
        return tuple((of_callers | of_users).values())

    def by_digest(self) -> dict[bytes, Caller]:
        """Return the caller of each key's SHA-256 digest."""
        return {digest: caller for caller in self.callers for digest in caller.key_hashes}


def decode_callers(content: bytes) -> str:
    """Return the text of a callers file. Raises `CallersFileError` if too large or not UTF-8."""
    if len(content) > MAX_FILE_BYTES:
        raise CallersFileError([_TOO_LARGE])
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise CallersFileError(["the file is UTF-16; save it as UTF-8"])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        # Not chained: the cause would carry the whole file into a traceback.
        raise CallersFileError([f"line {line}: not UTF-8; save the file as UTF-8"]) from None


def parse_callers(text: str) -> CallersFile:
    """Parse a whole callers file. Raises `CallersFileError`, and nothing else."""
    if len(text) > MAX_FILE_BYTES:
        raise CallersFileError([_TOO_LARGE])
    try:
        document = read_yaml(text.removeprefix("\ufeff"))
    except YamlError as error:
        raise CallersFileError(error.problems) from None
    checks = NodeChecks(document.problems)
    file = _read_file(document.root, checks)
    if checks.problems:
        raise CallersFileError(checks.problems)
    return file


def _read_file(root: Node | None, checks: NodeChecks) -> CallersFile:
    if root is None or taken_for(root) == "nothing":
        checks.problems.append("the file is empty; it must begin with `callers:`")
        return CallersFile(())
    if _has_callers_at_top(root):
        checks.problems.append("`callers:` is missing; put all callers below it, indented")
        return CallersFile(())
    problems_before = len(checks.problems)
    top = checks.fields(root, Place("", line_of(root)), ("callers", "issuers"))
    issuers = tuple(_IssuersReader(checks).read(top)) if "issuers" in top else ()
    if "callers" not in top:
        if len(checks.problems) == problems_before:
            checks.problems.append("`callers:` is missing; all callers go below it")
        return CallersFile((), issuers)
    return CallersFile(tuple(_CallersReader(checks).read(top)), issuers)


def _has_callers_at_top(root: Node) -> bool:
    """True if the callers' names are at the top, where `callers` should be."""
    return (
        isinstance(root, MappingNode)
        and bool(root.value)
        and all(
            isinstance(stanza, MappingNode) and _has_field_of_caller(stanza)
            for _, stanza in root.value
        )
    )


def _has_field_of_caller(stanza: MappingNode) -> bool:
    return any(
        isinstance(key, ScalarNode) and key.value in _CALLER_FIELDS for key, _ in stanza.value
    )


class _CallersReader:
    """Reads `callers:`."""

    def __init__(self, checks: NodeChecks) -> None:
        self._checks = checks
        self._key_places: dict[bytes, Place] = {}
        self._workload_places: dict[Workload, Place] = {}

    def read(self, top: Fields) -> Iterator[Caller]:
        """Yield the callers; a stanza with an invalid name is checked all the same."""
        node, place = top["callers"].node, top["callers"].place
        for index, (key, stanza) in enumerate(self._checks.pairs(node, place)):
            fault = quotes_needed(key) if taken_for(key) else rules.name_fault(key.value)
            if fault is None:
                yield self._caller(key.value, stanza, place.field(key.value, key))
            else:
                self._checks.problem(place.item(index, key), fault)
                yield self._caller("", stanza, place.item(index, key))

    def _caller(self, name: str, node: Node, place: Place) -> Caller:
        checks = self._checks
        fields = checks.fields(node, place, _CALLER_FIELDS)
        if not isinstance(node, MappingNode):
            # Reported; that all its settings are missing as well would be noise.
            return Caller(name, frozenset(), frozenset(), (), ())
        if "keys" not in fields and "workload" not in fields:
            checks.problem(place, "has neither `keys` nor `workload`, so it can never authenticate")
        permissions = frozenset(
            map(Permission, self._texts(fields, "can", rules.permission_fault, place))
        )
        needs_scopes = bool(rules.NEED_SCOPES & permissions)
        return Caller(
            name=name,
            key_hashes=self._key_hashes(fields),
            permissions=permissions,
            scopes=self._texts(
                fields, "scopes", rules.scope_fault, place if needs_scopes else None
            ),
            users=self._texts(fields, "users", rules.pattern_fault, place),
            return_to=self._texts(fields, "return_to", rules.return_to_fault),
            require_confirmation=checks.flag(fields, "require_confirmation"),
            display_name=checks.optional_text(fields, "display_name", rules.display_name_fault),
            workload=self._workload(fields),
            subject_required=checks.flag(fields, "subject_required"),
            rate_limit=self._rate_limit(fields),
        )

    def _texts(
        self, fields: Fields, name: str, fault: Fault, required_by: Place | None = None
    ) -> tuple[str, ...]:
        return self._checks.texts(fields, name, fault, _EXAMPLES[name], required_by)

    def _key_hashes(self, fields: Fields) -> frozenset[bytes]:
        if "keys" not in fields:
            return frozenset()
        field = fields["keys"]
        if isinstance(field.node, ScalarNode) and parse_key_hash(field.node.value) is None:
            self._checks.problem(field.place, rules.key_hash_fault(field.node.value))
            return frozenset()
        items = self._checks.items(field, _EXAMPLES["keys"])
        if items == () and "workload" not in fields:
            self._checks.problem(field.place, f"must not be empty; {_EXAMPLES['keys']}")
        digests = (
            self._key_hash(item, field.place.item(index, item))
            for index, item in enumerate(items or ())
        )
        return frozenset(digest for digest in digests if digest is not None)

    def _key_hash(self, node: Node, place: Place) -> bytes | None:
        """Return the digest of an item of `keys`, whose text is never shown."""
        if isinstance(node, MappingNode):
            self._checks.problem(
                place, 'must be text: "sha256:<hex>", in quotes and without a space'
            )
            return None
        if taken_for(node) is not None:
            self._checks.problem(place, rules.key_hash_fault(node.value))
            return None
        text = self._checks.text(node, place)
        if text is None:
            return None
        digest = parse_key_hash(text)
        if digest is None:
            self._checks.problem(place, rules.key_hash_fault(text))
        elif digest == _DIGEST_OF_NOTHING:
            self._checks.problem(place, "this is the hash of an empty text; hash the key itself")
        elif digest in self._key_places:
            self._checks.problem(place, f"the same key as {self._key_places[digest]}")
        else:
            self._key_places[digest] = place
        return digest

    def _workload(self, fields: Fields) -> Workload | None:
        if "workload" not in fields:
            return None
        checks = self._checks
        node, place = fields["workload"].node, fields["workload"].place
        problems_before = len(checks.problems)
        parts = checks.fields(node, place, ("issuer", "audience", "subject"))
        if not isinstance(node, MappingNode):
            return None
        workload = Workload(
            issuer=checks.required_text(parts, "issuer", place, rules.issuer_fault),
            audience=checks.required_text(parts, "audience", place, rules.text_fault),
            subject=checks.required_text(parts, "subject", place, rules.text_fault),
        )
        if len(checks.problems) > problems_before:
            return workload
        if workload in self._workload_places:
            checks.problem(place, f"the same workload as {self._workload_places[workload]}")
        self._workload_places[workload] = place
        return workload

    def _rate_limit(self, fields: Fields) -> RateLimit | None:
        if "rate_limit" not in fields:
            return None
        checks = self._checks
        node, place = fields["rate_limit"].node, fields["rate_limit"].place
        parts = checks.fields(node, place, ("requests_per_second", "burst"))
        if not isinstance(node, MappingNode):
            return None
        if "requests_per_second" not in parts:
            checks.problem(place, "`requests_per_second` is missing; for example 50")
            return None
        rate = checks.number(parts["requests_per_second"], least=0.01, most=1_000_000)
        if rate is None:
            return None
        burst: float | None = max(1, math.ceil(rate))
        if "burst" in parts:
            burst = checks.number(parts["burst"], least=1, most=1_000_000)
        if burst is not None and burst != int(burst):
            checks.problem(parts["burst"].place, "must be a whole number")
        return RateLimit(rate, int(burst)) if burst is not None else None


class _IssuersReader:
    """Reads `issuers:`."""

    def __init__(self, checks: NodeChecks) -> None:
        self._checks = checks

    def read(self, top: Fields) -> Iterator[Issuer]:
        """Yield the described issuers."""
        node, place = top["issuers"].node, top["issuers"].place
        if taken_for(node) == "nothing":
            return
        for key, stanza in self._checks.pairs(node, place):
            fault = quotes_needed(key) if taken_for(key) else rules.issuer_fault(key.value)
            place_of_issuer = place.field(key.value if fault is None else "(issuer)", key)
            if fault is not None:
                self._checks.problem(place_of_issuer, fault)
            yield self._issuer(key.value, stanza, place_of_issuer)

    def _issuer(self, url: str, node: Node, place: Place) -> Issuer:
        if taken_for(node) == "nothing":
            # All defaults, as without an entry.
            return Issuer(url)
        checks = self._checks
        fields = checks.fields(node, place, _ISSUER_FIELDS)
        return Issuer(
            url=url,
            jwks_url=checks.optional_text(fields, "jwks_url", rules.jwks_url_fault),
            ca_file=checks.optional_text(fields, "ca_file", rules.path_fault),
            token_file=checks.optional_text(fields, "token_file", rules.path_fault),
            algorithms=self._algorithms(fields),
            users=self._users(fields),
        )

    def _algorithms(self, fields: Fields) -> tuple[str, ...]:
        if "algorithms" not in fields:
            return ALGORITHMS
        return self._checks.texts(
            fields,
            "algorithms",
            rules.algorithm_fault,
            _EXAMPLES["algorithms"],
            fields["algorithms"].place,
        )

    def _users(self, fields: Fields) -> UserRule | None:
        if "users" not in fields:
            return None
        node, place = fields["users"].node, fields["users"].place
        parts = self._checks.fields(node, place, ("audience", "claim"))
        if not isinstance(node, MappingNode):
            return None
        audience = self._checks.required_text(parts, "audience", place, rules.text_fault)
        claim = self._checks.optional_text(parts, "claim", rules.text_fault)
        return UserRule(audience, claim or "sub")
