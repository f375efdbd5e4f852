"""The callers file: YAML in, checked callers out, or every problem at once with its place.

Never guesses what was meant: whatever is unknown, doubled or of the wrong kind is refused. No
message shows a key, nor anything that could be one.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from broker.callers import rules, yaml_nodes
from broker.callers.issuer_stanzas import IssuerReader
from broker.callers.keys import parse_key_hash
from broker.callers.model import Caller, Permission, RateLimit, Workload
from broker.callers.walker import Fault, Fields, Place, quotes_needed
from broker.callers.yaml_nodes import Node, Scalar, YamlError, read_yaml
from broker.issuers.model import Issuer

MAX_FILE_BYTES = 1024 * 1024
"""What a Kubernetes ConfigMap may hold; thousands of callers."""

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
_EXAMPLES = {
    "keys": 'for example ["sha256:<hex>"], as `broker callers new` prints it',
    "can": "any of [" + ", ".join(Permission) + "]",
    "scopes": "for example [https://www.googleapis.com/auth/calendar.readonly]",
    "users": 'for all users, write ["*"]',
    "return_to": "for example [https://app.example.com/settings]",
}
_DIGEST_OF_NOTHING = hashlib.sha256(b"").digest()
_TOO_LARGE = "the file is larger than 1 MiB"


class CallersFileError(Exception):
    """The callers file can't be used; `problems` has one actionable line each, and no key."""

    def __init__(self, problems: Iterable[str]) -> None:
        found = list(problems)
        if len(found) > _MAX_PROBLEMS:
            more = len(found) - _MAX_PROBLEMS
            found[_MAX_PROBLEMS:] = [f"… and {more} more"]
        super().__init__("\n".join(found))
        self.problems = found


@dataclass(frozen=True, slots=True)
class CallersFile:
    """A callers file in which nothing is wrong."""

    callers: tuple[Caller, ...]
    configured_issuers: tuple[Issuer, ...] = ()
    """Those that `issuers:` describes."""

    def issuers(self) -> tuple[Issuer, ...]:
        """Those whose JWTs count for anything: a caller's, or a user's."""
        described = {issuer.url: issuer for issuer in self.configured_issuers}
        named = (caller.workload.issuer for caller in self.callers if caller.workload)
        of_callers = {url: described.get(url, Issuer(url)) for url in named}
        of_users = {issuer.url: issuer for issuer in self.configured_issuers if issuer.users}
        return tuple((of_callers | of_users).values())

    def by_digest(self) -> dict[bytes, Caller]:
        """Each key's SHA-256 digest, and whose it is."""
        return {digest: caller for caller in self.callers for digest in caller.key_hashes}


def decode_callers(content: bytes) -> str:
    """The text of a callers file. Raises `CallersFileError` if it is too large or not UTF-8."""
    if len(content) > MAX_FILE_BYTES:
        raise CallersFileError([_TOO_LARGE])
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise CallersFileError(["the file is UTF-16; save it as UTF-8"])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        # Its cause would carry the whole file into a traceback.
        raise CallersFileError([f"line {line}: not UTF-8; save the file as UTF-8"]) from None


def parse_callers(text: str) -> CallersFile:
    """Check a whole callers file. Raises `CallersFileError`, and nothing else."""
    if len(text) > MAX_FILE_BYTES:
        raise CallersFileError([_TOO_LARGE])
    try:
        document = read_yaml(text.removeprefix("\ufeff"))
    except YamlError as error:
        raise CallersFileError(error.problems) from None
    checker = _Checker(document.problems)
    file = checker.file(document.root)
    if checker.problems:
        raise CallersFileError(checker.problems)
    return file


class _Checker(IssuerReader):
    """Reads one file's callers and issuers."""

    def __init__(self, problems: Iterable[str]) -> None:
        super().__init__(problems)
        self._key_places: dict[bytes, Place] = {}
        self._workload_places: dict[Workload, Place] = {}

    def file(self, root: Node | None) -> CallersFile:
        if root is None or (isinstance(root, Scalar) and root.taken_for == "nothing"):
            self.problems.append("the file is empty; it must begin with `callers:`")
            return CallersFile(())
        if _forgot_callers(root):
            self.problems.append("`callers:` is missing; put all callers below it, indented")
            return CallersFile(())
        problems_before = len(self.problems)
        top = self.fields(root, Place("", root.line), ("callers", "issuers"))
        issuers = self.issuers(top["issuers"]) if "issuers" in top else ()
        if "callers" not in top:
            if len(self.problems) == problems_before:
                self.problems.append("`callers:` is missing; all callers go below it")
            return CallersFile((), issuers)
        named = self._named(top["callers"].node, top["callers"].place)
        callers = tuple(self._caller(name, stanza, place) for name, stanza, place in named)
        return CallersFile(callers, issuers)

    def _named(self, node: Node, place: Place) -> Iterator[tuple[str, Node, Place]]:
        """The callers' stanzas; one with an unusable name is read all the same."""
        for index, (key, stanza) in enumerate(self.pairs(node, place)):
            fault = quotes_needed(key) if key.taken_for else rules.name_fault(key.text)
            if fault is None:
                yield key.text, stanza, place.field(key.text, key)
            else:
                self.problem(place.item(index, key), fault)
                yield "", stanza, place.item(index, key)

    def _caller(self, name: str, node: Node, place: Place) -> Caller:
        fields = self.fields(node, place, _CALLER_FIELDS)
        if not isinstance(node, yaml_nodes.Mapping):
            # Noted; that all its settings are missing as well would be noise.
            return Caller(name, frozenset(), frozenset(), (), ())
        if "keys" not in fields and "workload" not in fields:
            self.problem(place, "has neither `keys` nor `workload`, so nobody could be it")
        permissions = self._permissions(fields, place)
        return Caller(
            name=name,
            key_hashes=self._key_hashes(fields),
            permissions=permissions,
            scopes=self._list(
                fields,
                "scopes",
                rules.scope_fault,
                place if rules.NEED_SCOPES & permissions else None,
            ),
            users=self._list(fields, "users", rules.pattern_fault, place),
            return_to=self._list(fields, "return_to", rules.return_to_fault),
            require_confirmation="require_confirmation" in fields
            and self.flag(fields["require_confirmation"]),
            display_name=self._display_name(fields),
            workload=self._workload(fields),
            subject_required="subject_required" in fields and self.flag(fields["subject_required"]),
            rate_limit=self._rate_limit(fields),
        )

    def _display_name(self, fields: Fields) -> str | None:
        if "display_name" not in fields:
            return None
        field = fields["display_name"]
        return self.text(field.node, field.place, rules.display_name_fault)

    def _list(
        self, fields: Fields, name: str, fault: Fault, required_by: Place | None = None
    ) -> tuple[str, ...]:
        """The distinct texts of a list. One that is required must be there and not be empty."""
        example = _EXAMPLES[name]
        if name not in fields:
            if required_by is not None:
                self.problem(required_by, f"`{name}` is missing; {example}")
            return ()
        field = fields[name]
        items = self.items(field, example)
        if required_by is not None and items == ():
            self.problem(field.place, f"must not be empty; {example}")
        texts = (
            self.text(item, field.place.item(index, item), fault)
            for index, item in enumerate(items or ())
        )
        return tuple(dict.fromkeys(text for text in texts if text is not None))

    def _permissions(self, fields: Fields, place: Place) -> frozenset[Permission]:
        names = self._list(fields, "can", rules.permission_fault, place)
        return frozenset(map(Permission, names))

    def _key_hashes(self, fields: Fields) -> frozenset[bytes]:
        if "keys" not in fields:
            return frozenset()
        field = fields["keys"]
        if isinstance(field.node, Scalar) and parse_key_hash(field.node.text) is None:
            self.problem(field.place, rules.key_hash_fault(field.node.text))
            return frozenset()
        items = self.items(field, _EXAMPLES["keys"])
        if items == () and "workload" not in fields:
            self.problem(field.place, f"must not be empty; {_EXAMPLES['keys']}")
        digests = (
            self._key_hash(item, field.place.item(index, item))
            for index, item in enumerate(items or ())
        )
        return frozenset(digest for digest in digests if digest is not None)

    def _key_hash(self, node: Node, place: Place) -> bytes | None:
        """The digest of an item of `keys`, whose text is never shown."""
        if isinstance(node, yaml_nodes.Mapping):
            self.problem(place, 'must be text: "sha256:<hex>", in quotes and without a space')
            return None
        if isinstance(node, Scalar) and node.taken_for is not None:
            self.problem(place, rules.key_hash_fault(node.text))
            return None
        text = self.text(node, place)
        if text is None:
            return None
        digest = parse_key_hash(text)
        if digest is None:
            self.problem(place, rules.key_hash_fault(text))
        elif digest == _DIGEST_OF_NOTHING:
            self.problem(place, "this is the hash of an empty text; hash the key itself")
        elif digest in self._key_places:
            self.problem(place, f"the same key as {self._key_places[digest]}")
        else:
            self._key_places[digest] = place
        return digest

    def _workload(self, fields: Fields) -> Workload | None:
        if "workload" not in fields:
            return None
        node, place = fields["workload"].node, fields["workload"].place
        problems_before = len(self.problems)
        parts = self.fields(node, place, ("issuer", "audience", "subject"))
        if not isinstance(node, yaml_nodes.Mapping):
            return None
        workload = Workload(
            issuer=self.part(parts, "issuer", place, rules.issuer_fault),
            audience=self.part(parts, "audience", place, rules.text_fault),
            subject=self.part(parts, "subject", place, rules.text_fault),
        )
        if len(self.problems) > problems_before:
            return workload
        if workload in self._workload_places:
            self.problem(place, f"the same workload as {self._workload_places[workload]}")
        self._workload_places[workload] = place
        return workload

    def _rate_limit(self, fields: Fields) -> RateLimit | None:
        if "rate_limit" not in fields:
            return None
        node, place = fields["rate_limit"].node, fields["rate_limit"].place
        parts = self.fields(node, place, ("requests_per_second", "burst"))
        if not isinstance(node, yaml_nodes.Mapping):
            return None
        if "requests_per_second" not in parts:
            self.problem(place, "`requests_per_second` is missing; for example 50")
            return None
        rate = self.number(parts["requests_per_second"], least=0.01, most=1_000_000)
        if rate is None:
            return None
        burst: float | None = max(1, math.ceil(rate))
        if "burst" in parts:
            burst = self.number(parts["burst"], least=1, most=1_000_000)
        if burst is not None and burst != int(burst):
            self.problem(parts["burst"].place, "must be a whole number")
        return RateLimit(rate, int(burst)) if burst is not None else None


def _forgot_callers(root: Node) -> bool:
    """Whether the callers' names stand at the top, where `callers` should be."""
    return (
        isinstance(root, yaml_nodes.Mapping)
        and bool(root.pairs)
        and all(
            isinstance(stanza, yaml_nodes.Mapping) and _has_field_of_caller(stanza)
            for _, stanza in root.pairs
        )
    )


def _has_field_of_caller(stanza: yaml_nodes.Mapping) -> bool:
    return any(isinstance(key, Scalar) and key.text in _CALLER_FIELDS for key, _ in stanza.pairs)
