"""One target, tried in one way, in a process of its own."""

import sys
from contextlib import nullcontext
from typing import Any


def main() -> None:
    """Arguments: way, target, tries, seconds, seed."""
    way, name, tries, seconds, number = sys.argv[1:]
    watching: Any = nullcontext()
    if way == "coverage":
        import atheris  # noqa: PLC0415  (there is no such package for every machine)

        watching = atheris.instrument_imports(include=["broker"], enable_loader_override=False)
    with watching:
        from fuzz import engines, everything  # noqa: PLC0415  (imported under its eyes)

    how: dict[str, Any] = {"seconds": float(seconds), "number": int(number)}
    with everything.opened(name) as target:
        if way == "coverage":
            engines.try_with_coverage(target, int(tries), **how)
            return
        tried = {"property": engines.try_with_properties, "seeded": engines.try_with_seeds}[way](
            target, int(tries), **how
        )
        print(f"tried {tried.tries} in {tried.seconds:.3f} s", flush=True)


if __name__ == "__main__":
    main()
