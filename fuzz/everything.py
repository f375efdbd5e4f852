"""All targets, by name; a place to send requests to is opened only for those that take one."""

from collections.abc import Iterator
from contextlib import contextmanager

from fuzz.files import file_targets
from fuzz.parsers import parser_targets
from fuzz.places import Place
from fuzz.routes import ROUTE_NAMES, route_target
from fuzz.signed import signed_targets
from fuzz.target import Target
from fuzz.wire import WIRE_NAMES, wire_target


def parsers() -> dict[str, Target]:
    """Those that need nothing but their input."""
    made = (*parser_targets(), *file_targets(), *signed_targets())
    return {target.name: target for target in made}


def target_names() -> list[str]:
    """Parsers first."""
    return [*parsers(), *WIRE_NAMES, *ROUTE_NAMES]


@contextmanager
def opened(name: str) -> Iterator[Target]:
    """The target of this name, until the block ends."""
    known = parsers()
    if name in known:
        yield known[name]
        return
    place = Place()
    try:
        yield wire_target(name, place) if name in WIRE_NAMES else route_target(name, place)
    finally:
        place.close()
