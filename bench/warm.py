"""`python -m bench.warm`: one comparison, its ratios, and an exit status for a pipeline."""

import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from bench.answers import Answer, ask_once
from bench.comparison import BROKER, Comparison, compare
from bench.cores import Cores, starting_on
from bench.environment import broker_with_users
from bench.load import Round, run_round
from bench.report import as_json, as_text
from bench.servers import BenchError, ServerProcess
from devstack.processes import free_port


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--rounds", type=click.IntRange(min=1), default=11, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.2),
    default=2.0,
    show_default=True,
    help="Seconds measured per round, after one second of warm-up.",
)
@click.option(
    "--connections",
    type=click.IntRange(1, 1000),
    default=32,
    show_default=True,
    help="Number of keep-alive connections, each for another user.",
)
@click.option(
    "--at-least",
    type=click.FloatRange(min=0),
    default=0.85,
    show_default=True,
    help="Exit with 1 if the ratio is lower.",
)
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
def main(*, rounds: int, seconds: float, connections: int, at_least: float, is_json: bool) -> None:
    """Measure the warm token fetch beside a bare ASGI app.

    All send the same bytes on the same event loop, alternately on the same core: the broker, the
    bare app on the broker's HTTP server, and the bare app on uvicorn's stock protocol class, which
    has fewer bounds. The broker is a real `broker serve` with a real PostgreSQL: each request is
    authenticated, checked against the caller's policy, timed, counted and audited.
    """
    cores = Cores.pick()

    def progress(text: str) -> None:
        click.echo(text, err=is_json)

    try:
        with (
            starting_on(cores.others if cores else None),
            tempfile.TemporaryDirectory(prefix="bench-") as folder,
        ):
            comparison = _run(Path(folder), cores, rounds, seconds, connections, progress)
    except BenchError as error:
        raise click.ClickException(str(error)) from error
    report = as_json if is_json else as_text
    click.echo(report(comparison, cores, at_least=at_least))
    sys.exit(0 if comparison.lowest >= at_least and not comparison.failures else 1)


def _run(
    folder: Path,
    cores: Cores | None,
    rounds: int,
    seconds: float,
    connections: int,
    progress: Callable[[str], None],
) -> Comparison:
    progress(
        f"Starting PostgreSQL, the Google stand-in and the broker; connecting {connections} users"
    )
    with broker_with_users(folder, cores, users=connections) as world:
        # A user's first request fills the cache; the fast path answers from the second on.
        answers = [ask_once(world.broker.port, request) for request in world.requests]
        refused = [answer.status for answer in answers if answer.status != 200]
        if refused:
            raise BenchError(f"the broker answers {refused[0]} to a token request")
        answer = ask_once(world.broker.port, world.requests[0])
        with _bare(folder, cores, answer) as bare, _bare(folder, cores, answer, "--stock") as stock:

            def measure(server: ServerProcess) -> Round:
                return run_round(
                    server.port,
                    world.requests,
                    warm_up=1.0,
                    seconds=seconds,
                    cpu_seconds=server.cpu_seconds,
                )

            contestants = {
                BROKER: partial(measure, world.broker),
                "bare app": partial(measure, bare),
                "bare app, uvicorn's own class": partial(measure, stock),
            }
            return compare(contestants, rounds=rounds, progress=progress)


def _bare(folder: Path, cores: Cores | None, answer: Answer, *options: str) -> ServerProcess:
    port, path = free_port(), folder / "answer.json"
    answer.save(path)
    with starting_on(cores.server if cores else None):
        return ServerProcess(
            "the bare app",
            ("-m", "bench.bare", str(port), str(path), *options),
            environment=os.environ,
            port=port,
            log_path=folder / f"bare{''.join(options)}.log",
        )


if __name__ == "__main__":
    main()
