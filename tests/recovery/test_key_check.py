"""`broker keys check`: a key from escrow opens what is stored, or not."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.cli.keys import keys
from tests.support.processes import run_broker
from tests.support.world import World

OTHER = "another-key-of-more-than-32-bytes-0123456789abc"


async def _check(world: World, *given: str, text: str | None = None) -> Result:
    settings: Mapping[str, str | None] = {
        "DATABASE_URL": world.settings.database_url.reveal(),
        "SECRET_KEY": OTHER,
        "SECRET_KEY_FILE": "/nowhere",
    }
    return await asyncio.to_thread(
        lambda: CliRunner().invoke(keys, ["check", *given], env=settings, input=text)
    )


def _key(world: World) -> str:
    return world.settings.secret_keys[0].reveal()


async def test_the_right_key_opens_a_row_of_each_kind(world: World, tmp_path: Path) -> None:
    await world.connect()
    escrowed = tmp_path / "escrowed"
    escrowed.write_text(_key(world) + "\n", encoding="utf-8")
    result = await _check(world, str(escrowed))
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "1 refresh tokens of key 1: one was opened",
        "1 access tokens of key 1: one was opened",
        "the key opens what is stored",
    ]


@pytest.mark.parametrize("given", [[OTHER], [OTHER, "{key}"], ["{key}", OTHER]])
async def test_all_keys_in_use_are_required(world: World, given: Sequence[str]) -> None:
    await world.connect()
    text = ",".join(given).replace("{key}", _key(world))
    result = await _check(world, "-", text=text)
    assert result.exit_code == (0 if _key(world) in text else 1), result.output
    assert ("the key is missing" in result.stdout) == (_key(world) not in text)
    assert OTHER not in result.output
    assert _key(world) not in result.output


async def test_an_altered_row_fails(world: World) -> None:
    await world.connect()
    await world.sql("UPDATE grants SET sealed_refresh_token = sealed_refresh_token || '\\x00'")
    result = await _check(world, "-", text=_key(world))
    assert result.exit_code == 1
    assert "1 refresh tokens of key 1: does not open: altered" in result.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "SECRET_KEY is missing"),
        ("short", "shorter than 32 bytes"),
        (OTHER, "nothing is stored: the key can't be checked"),
    ],
)
async def test_a_key_that_cannot_be_checked_is_reported(
    world: World, text: str, words: str
) -> None:
    result = await _check(world, "-", text=text)
    assert (result.exit_code, words in result.stderr) == (1, True)


def test_a_missing_file_is_reported(database_url: str) -> None:
    missing = run_broker("keys", "check", "nowhere", settings={"DATABASE_URL": database_url})
    assert missing.returncode == 2
    assert missing.stderr.endswith("'nowhere': No such file or directory\n")
