from pathlib import Path

import pytest

from broker.secret import Secret
from broker.secret_sources.environment import EnvironmentClientSource
from broker.secret_sources.source import SourceMisconfigured
from broker.settings import EnvironmentSource, SecretSetting


def source_of_files(folder: Path) -> EnvironmentClientSource:
    (folder / "id").write_text("an-id\n")
    (folder / "secret").write_text("first\n")
    return EnvironmentClientSource(
        EnvironmentSource(
            client_id=SecretSetting("GOOGLE_CLIENT_ID", path=folder / "id"),
            client_secret=SecretSetting("GOOGLE_CLIENT_SECRET", path=folder / "secret"),
        )
    )


async def test_values_are_the_client() -> None:
    source = EnvironmentClientSource(
        EnvironmentSource(
            client_id=SecretSetting("GOOGLE_CLIENT_ID", value=Secret("an-id")),
            client_secret=SecretSetting("GOOGLE_CLIENT_SECRET", value=Secret("a-secret")),
        )
    )
    client = await source.read()
    assert (client.client_id, client.client_secret.reveal()) == ("an-id", "a-secret")


async def test_a_secret_rotated_on_disk_is_the_next_version(tmp_path: Path) -> None:
    source = source_of_files(tmp_path)
    before = await source.read()
    (tmp_path / "secret").write_text("second\n")
    after = await source.read()
    assert (before.client_secret.reveal(), before.version) == ("first", 1)
    assert (after.client_secret.reveal(), after.version) == ("second", 2)


async def test_files_that_stay_the_same_stay_the_same_version(tmp_path: Path) -> None:
    source = source_of_files(tmp_path)
    assert await source.read() == await source.read()


async def test_a_file_that_has_gone_is_named(tmp_path: Path) -> None:
    source = source_of_files(tmp_path)
    (tmp_path / "secret").unlink()
    with pytest.raises(
        SourceMisconfigured, match=r"GOOGLE_CLIENT_SECRET_FILE: can't read .*secret"
    ):
        await source.ping()


async def test_a_file_that_is_not_text_is_not_chained_to_the_error(tmp_path: Path) -> None:
    source = source_of_files(tmp_path)
    (tmp_path / "secret").write_bytes(b"planted-secret\xff")
    with pytest.raises(SourceMisconfigured) as caught:
        await source.read()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


async def test_a_client_id_with_a_line_break_inside_is_refused(tmp_path: Path) -> None:
    source = source_of_files(tmp_path)
    (tmp_path / "id").write_text("two\nlines")
    with pytest.raises(SourceMisconfigured, match="`client_id` holds a character"):
        await source.read()
