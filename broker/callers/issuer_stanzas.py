"""The `issuers:` of a callers file: how the keys of an issuer are had, and whose users it knows."""

from broker.callers import rules, yaml_nodes
from broker.callers.walker import Fault, Field, Fields, Place, Walker, quotes_needed
from broker.callers.yaml_nodes import Node, Scalar
from broker.issuers.model import ALGORITHMS, Issuer, UserRule

_FIELDS = ("jwks_url", "ca_file", "token_file", "algorithms", "users")
_EXAMPLE = "for example [RS256, ES256]"


class IssuerReader(Walker):
    """Reads what is said of issuers."""

    def issuers(self, field: Field) -> tuple[Issuer, ...]:
        """All that are described; what is wrong with one is noted."""
        if isinstance(field.node, Scalar) and field.node.taken_for == "nothing":
            return ()
        found = []
        for key, node in self.pairs(field.node, field.place):
            fault = quotes_needed(key) if key.taken_for else rules.issuer_fault(key.text)
            place = field.place.field(key.text if fault is None else "(issuer)", key)
            if fault is not None:
                self.problem(place, fault)
            found.append(self._issuer(key.text, node, place))
        return tuple(found)

    def part(self, parts: Fields, name: str, place: Place, fault: Fault) -> str:
        """A text that must be there; empty where something is wrong with it, which is noted."""
        if name in parts:
            return self.text(parts[name].node, parts[name].place, fault) or ""
        self.problem(place, f"`{name}` is missing")
        return ""

    def _issuer(self, url: str, node: Node, place: Place) -> Issuer:
        if isinstance(node, Scalar) and node.taken_for == "nothing":
            # All as it is without an entry.
            return Issuer(url)
        fields = self.fields(node, place, _FIELDS)
        return Issuer(
            url=url,
            jwks_url=self._optional(fields, "jwks_url", rules.jwks_url_fault),
            ca_file=self._optional(fields, "ca_file", rules.path_fault),
            token_file=self._optional(fields, "token_file", rules.path_fault),
            algorithms=self._algorithms(fields),
            users=self._users(fields),
        )

    def _optional(self, fields: Fields, name: str, fault: Fault) -> str | None:
        return self.text(fields[name].node, fields[name].place, fault) if name in fields else None

    def _algorithms(self, fields: Fields) -> tuple[str, ...]:
        if "algorithms" not in fields:
            return ALGORITHMS
        field = fields["algorithms"]
        items = self.items(field, _EXAMPLE)
        if items == ():
            self.problem(field.place, f"must not be empty; {_EXAMPLE}")
        names = (
            self.text(item, field.place.item(index, item), rules.algorithm_fault)
            for index, item in enumerate(items or ())
        )
        return tuple(dict.fromkeys(name for name in names if name is not None))

    def _users(self, fields: Fields) -> UserRule | None:
        if "users" not in fields:
            return None
        node, place = fields["users"].node, fields["users"].place
        parts = self.fields(node, place, ("audience", "claim"))
        if not isinstance(node, yaml_nodes.Mapping):
            return None
        audience = self.part(parts, "audience", place, rules.text_fault)
        return UserRule(audience, self._optional(parts, "claim", rules.text_fault) or "sub")
