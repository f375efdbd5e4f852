"""`python -m model`, or `make model`: plays a random history, or one again; says what it found."""

import random
import tempfile
from pathlib import Path

import click

from model.history import Options, read_history
from model.play import FoundError, Played, play


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--minutes", default=5.0, show_default=True, help="How long; nothing to a replay.")
@click.option("--seed", type=int, help="Of the history; another each time without it.")
@click.option("--replicas", default=2, show_default=True)
@click.option("--users", default=4, show_default=True)
@click.option("--accounts", default=3, show_default=True)
@click.option("--no-standby", is_flag=True, help="One PostgreSQL, and no failovers.")
@click.option("--no-troubles", is_flag=True, help="Nothing breaks; only operations overlap.")
@click.option(
    "--replay", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="Play the steps of a history again, in the same order.",
)  # fmt: skip
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path),
    help="Where history and logs go and stay; a new one is made without it.",
)  # fmt: skip
def main(  # noqa: PLR0913  (one for each option)
    *,
    minutes: float,
    seed: int | None,
    replicas: int,
    users: int,
    accounts: int,
    no_standby: bool,
    no_troubles: bool,
    replay: Path | None,
    folder: Path | None,
) -> None:
    """Do at random what users, callers and Google do, break things meanwhile, and compare.

    Real replicas, a real PostgreSQL with a standby, and the Google stand-in run beside a model of
    what must be true. Exits with 1 at the first difference; the history says how it came about.
    """
    options = Options(
        seed=random.randrange(10**6) if seed is None else seed,
        replicas=replicas,
        users=users,
        accounts=accounts,
        standby=not no_standby,
        troubles=not no_troubles,
    )
    steps = None
    if replay is not None:
        options, steps = read_history(replay)
    folder = folder or Path(tempfile.mkdtemp(prefix="model-"))
    folder.mkdir(parents=True, exist_ok=True)
    # PostgreSQL may run as another user.
    folder.chmod(0o755)
    click.echo(f"seed {options.seed}, history in {folder / 'history.jsonl'}", err=True)
    try:
        played = play(
            options, steps, folder, seconds=minutes * 60, tell=lambda it: click.echo(it, err=True)
        )
    except FoundError as error:
        raise click.ClickException(
            f"seed {options.seed}, {error}\nreplay: --replay {folder / 'history.jsonl'}"
        ) from error
    click.echo(_summary(played))


def _summary(played: Played) -> str:
    steps = sum(played.steps.values())
    lines = [f"nothing found in {steps} steps, {played.seconds:.0f} s"]
    for title, counted in (
        ("steps", played.steps), ("checks", played.checks), ("503", played.wrongs),
    ):  # fmt: skip
        named = ", ".join(f"{name} {count}" for name, count in sorted(counted.items()))
        lines.append(f"  {title}: {named}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
