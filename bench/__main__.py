"""`python -m bench` (`make bench`): all rows in one run, and an exit status for a pipeline."""

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click

from bench.cores import Cores, starting_on
from bench.environment import BenchEnvironment, bench_environment
from bench.rows import batch, cold, expiry, memory, revocation, start, trouble, warm
from bench.rows.plan import Plan, RowNotMeasurableError
from bench.servers import BenchError
from bench.table import Figure, Skipped, as_json, as_text, has_passed

_WARM = "warm"
"""Has its own PostgreSQL, so it runs before the one of all other rows starts."""

ROWS: Mapping[str, Callable[[Plan, BenchEnvironment], Sequence[Figure]]] = {
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
    help="Measure only this row (repeatable); default: all rows.",
)
@click.option("--all", "is_all", is_flag=True, help="Measure all rows (the default).")
@click.option(
    "--quick", is_flag=True, help="Only check that every row runs; the figures mean little."
)
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
def main(*, only: Sequence[str], is_all: bool, quick: bool, is_json: bool) -> None:
    """Measure the cost of serving a token, and check each figure against its bound.

    The measured server has one CPU core, everything else another. Exits with 1 if a figure misses
    its bound or a row can't be measured.
    """
    cores = Cores.pick()
    began = time.monotonic()

    def progress(text: str) -> None:
        click.echo(f"{time.monotonic() - began:5.0f} s  {text}", err=True)

    try:
        names = [_WARM, *ROWS] if is_all or not only else only
        figures, skipped = _measure(names, cores, progress, quick=quick)
    except BenchError as error:
        raise click.ClickException(str(error)) from error
    report = as_json if is_json else as_text
    click.echo(report(figures, skipped, pinned=cores is not None))
    sys.exit(0 if has_passed(figures, skipped) else 1)


def _measure(
    names: Sequence[str], cores: Cores | None, progress: Callable[[str], None], *, quick: bool
) -> tuple[list[Figure], list[Skipped]]:
    figures: list[Figure] = []
    skipped: list[Skipped] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        plan = Plan(folder=Path(folder), cores=cores, quick=quick, progress=progress)
        if _WARM in names:
            progress(f"measuring {_WARM}")
            figures += warm.measure_bare(plan)
        rest = [name for name in ROWS if name in names]
        if not rest:
            return figures, skipped
        with (
            starting_on(cores.others if cores else None),
            bench_environment(Path(folder), cores) as environment,
        ):
            for name in rest:
                progress(f"measuring {name}")
                try:
                    figures += ROWS[name](plan, environment)
                except RowNotMeasurableError as reason:
                    skipped.append(Skipped(name, str(reason)))
    return figures, skipped


if __name__ == "__main__":
    main()
