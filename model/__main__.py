"""`python -m model` (`make model`): plays a random history or replays one, and reports findings."""

import random
import tempfile
from pathlib import Path

import click

from model.history import Options, read_history
from model.play import FoundError, Played, play


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--minutes", default=5.0, show_default=True, help="Duration in seconds; ignored by a replay."
)
@click.option("--seed", type=int, help="Seed of the history; default: a random one.")
@click.option("--replicas", default=2, show_default=True)
@click.option("--users", default=4, show_default=True)
@click.option("--accounts", default=3, show_default=True)
@click.option("--no-standby", is_flag=True, help="Use one PostgreSQL, without failovers.")
@click.option("--no-troubles", is_flag=True, help="Inject no faults; operations still overlap.")
@click.option(
    "--replay", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="Replay the steps of a history in the same order.",
)  # fmt: skip
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path),
    help="Folder for history and logs; default: a new temporary one.",
)  # fmt: skip
def main(  # noqa: PLR0913  (one per option)
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
    """Play random operations of users, callers and Google, inject faults, and compare with a model.

    Real replicas, a real PostgreSQL with a standby, and the Google stand-in run beside a model of
    the allowed states. Exits with 1 at the first difference; the history reproduces it.
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
