"""`python -m fuzz`: runs every target with both engines and prints the results.

Each target has its own process: a fuzzer ends the process that it runs in, and a hang affects only
its own.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import click

from fuzz.postgres import DATABASE_URL, Ground, laid_ground

WAYS = ("property", "seeded", "coverage")
_ENDED_EARLY = "ended early"
_PROGRESS = re.compile(r"^#\d+\t.*\n", re.MULTILINE)
"""Progress lines of libFuzzer."""


@click.command()
@click.option("--tries", default=100_000, show_default=True, help="Inputs per target and engine.")
@click.option(
    "--seconds", default=600.0, show_default=True, help="Time limit per target and engine."
)
@click.option("--only", multiple=True, help="Run only targets whose name contains this.")
@click.option("--way", "ways", multiple=True, type=click.Choice(WAYS), help="Default: all three.")
@click.option("--seed", "number", default=0, show_default=True)
@click.option(
    "--jobs", default=1, show_default=True, help="Number of targets that run in parallel."
)
@click.option("--list", "only_list", is_flag=True, help="List the targets and exit.")
def main(
    tries: int,
    seconds: float,
    only: Sequence[str],
    ways: Sequence[str],
    number: int,
    jobs: int,
    only_list: bool,  # noqa: FBT001  (a command-line flag)
) -> None:
    """Fuzz every parser and every route. Exits with 1 if a defect is found."""
    from fuzz.all_targets import target_names  # noqa: PLC0415  (not instrumented here)

    every = target_names()
    wanted = [part for part in only if part not in every]
    names = [n for n in every if not only or n in only or any(part in n for part in wanted)]
    if only_list:
        click.echo("\n".join(names))
        return
    chosen = [way for way in ways or WAYS if way != "coverage" or _has_coverage(ways)]
    how = (tries, seconds, number)
    with laid_ground() as ground, ThreadPoolExecutor(jobs) as pool:
        runs = [pool.submit(_run, name, way, how, ground) for way in chosen for name in names]
        found = sum(run.result() for run in runs)
    if found:
        raise click.ClickException(f"{found} targets have findings")


def _has_coverage(ways: Sequence[str]) -> bool:
    if find_spec("atheris") is not None:
        return True
    if "coverage" in ways:
        raise click.ClickException("atheris is not installed: requirements/fuzz.txt")
    click.echo(
        "without atheris (requirements/fuzz.txt) there is no coverage-guided fuzzing", err=True
    )
    return False


def _run(name: str, way: str, how: tuple[int, float, int], ground: Ground) -> bool:
    """Run one target with one engine; return True if it found a defect."""
    tries, seconds, number = how
    command = [sys.executable, "-m", "fuzz.child", way, name, str(tries), str(seconds), str(number)]
    began = time.monotonic()
    with ground.database() as url:
        environment = os.environ | {DATABASE_URL: url}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    took = time.monotonic() - began
    said = done.stderr + done.stdout
    # A fuzzer with a finding exits like one that is done, but does not print its summary.
    good = done.returncode == 0 and _summary(said) != _ENDED_EARLY
    click.echo(f"{way:9} {name:34} {_summary(said):44} {took:7.1f} s  {'ok' if good else 'FOUND'}")
    if not good:
        click.echo(f"ended with {done.returncode}\n{_PROGRESS.sub('', said)[-8000:]}")
    return not good


def _summary(said: str) -> str:
    """Return the last line that either engine prints."""
    plain = re.findall(r"^tried (\d+) in ([0-9.]+) s", said, re.MULTILINE)
    if plain:
        tries, seconds = int(plain[-1][0]), float(plain[-1][1])
        return f"{tries:>7} tries, {tries / max(seconds, 0.001):>6.0f}/s"
    lines = re.findall(r"^#(\d+)\s+DONE\s+cov: (\d+) ft: (\d+) corp: (\d+)", said, re.MULTILINE)
    if lines:
        tries, edges, features, size = lines[-1]
        return f"{tries:>7} tries, {edges} edges, {features} features, {size} kept"
    return _ENDED_EARLY


if __name__ == "__main__":
    main()
