"""`python -m bench`, or `make bench`: the whole table in one run, and a status for a pipeline."""

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click

from bench.cores import Cores, starting_on
from bench.rows import batch, cold, expiry, memory, revocation, start, trouble, warm
from bench.rows.plan import Plan, RowNotMeasurableError
from bench.servers import BenchError
from bench.table import Figure, Skipped, as_json, as_text, has_passed
from bench.world import Surroundings, surroundings

_WARM = "warm"
"""Has a PostgreSQL of its own, so it goes before the one that all others share is started."""

ROWS: Mapping[str, Callable[[Plan, Surroundings], Sequence[Figure]]] = {
    "openbao": warm.measure_openbao,
    "cold": cold.measure_cold,
    "batch": batch.measure_batch,
    "trouble": trouble.measure_trouble,
    "storm": expiry.measure_storm,
    "lifetimes": expiry.measure_lifetimes,
    "revocation": revocation.measure_revocation,
    "growth": cold.measure_growth,
    "start": start.measure_start,
    "memory": memory.measure_memory,
}


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--only",
    type=click.Choice([_WARM, *ROWS]),
    multiple=True,
    help="This row, and others that are named so; without it, every one.",
)
@click.option("--all", "is_all", is_flag=True, help="Every row, which is what it does anyway.")
@click.option("--quick", is_flag=True, help="See that everything runs; the figures mean little.")
@click.option("--json", "is_json", is_flag=True, help="One JSON object on stdout.")
def main(*, only: Sequence[str], is_all: bool, quick: bool, is_json: bool) -> None:
    """Measure what handing out a token costs, and check each figure against its bound.

    Whatever is measured has one processor core for itself, and everything else another. Exits with
    1 when a bound is missed or a row could not be measured.
    """
    cores = Cores.pick()
    began = time.monotonic()

    def tell(text: str) -> None:
        click.echo(f"{time.monotonic() - began:5.0f} s  {text}", err=True)

    try:
        names = [_WARM, *ROWS] if is_all or not only else only
        figures, skipped = _measure(names, cores, tell, quick=quick)
    except BenchError as error:
        raise click.ClickException(str(error)) from error
    report = as_json if is_json else as_text
    click.echo(report(figures, skipped, pinned=cores is not None))
    sys.exit(0 if has_passed(figures, skipped) else 1)


def _measure(
    names: Sequence[str], cores: Cores | None, tell: Callable[[str], None], *, quick: bool
) -> tuple[list[Figure], list[Skipped]]:
    figures: list[Figure] = []
    skipped: list[Skipped] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        plan = Plan(folder=Path(folder), cores=cores, quick=quick, tell=tell)
        if _WARM in names:
            tell(f"measuring {_WARM}")
            figures += warm.measure_bare(plan)
        rest = [name for name in ROWS if name in names]
        if not rest:
            return figures, skipped
        with (
            starting_on(cores.others if cores else None),
            surroundings(Path(folder), cores) as around,
        ):
            for name in rest:
                tell(f"measuring {name}")
                try:
                    figures += ROWS[name](plan, around)
                except RowNotMeasurableError as reason:
                    skipped.append(Skipped(name, str(reason)))
    return figures, skipped


if __name__ == "__main__":
    main()
