"""One target with one engine, in its own process."""

import sys
from contextlib import nullcontext
from typing import Any


def main() -> None:
    """Arguments: engine, target, number of inputs, seconds, seed."""
    way, name, tries, seconds, number = sys.argv[1:]
    watching: Any = nullcontext()
    if way == "coverage":
        import atheris  # noqa: PLC0415  (the package does not exist for every platform)

        watching = atheris.instrument_imports(include=["broker"], enable_loader_override=False)
    with watching:
        from fuzz import all_targets, engines  # noqa: PLC0415  (imported with instrumentation)

    how: dict[str, Any] = {"seconds": float(seconds), "number": int(number)}
    with all_targets.opened(name) as target:
        if way == "coverage":
            engines.try_with_coverage(target, int(tries), **how)
            return
        tried = {"property": engines.try_with_properties, "seeded": engines.try_with_seeds}[way](
            target, int(tries), **how
        )
        print(f"tried {tried.tries} in {tried.seconds:.3f} s", flush=True)


if __name__ == "__main__":
    main()
