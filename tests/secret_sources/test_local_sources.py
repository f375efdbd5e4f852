"""The OAuth client from the environment, and from Google's `credentials.json`."""

import json
from pathlib import Path

import pytest

from broker.secret import Secret
from broker.secret_sources.local_sources import CredentialsFileSource, EnvironmentClientSource
from broker.secret_sources.source import SourceMisconfigured
from broker.settings import ConfiguredSecret, EnvironmentSource, FileSource

CLIENT = {"client_id": "an-id.apps.googleusercontent.com", "client_secret": "planted-secret"}


def source_of(folder: Path, content: object) -> CredentialsFileSource:
    path = folder / "credentials.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return CredentialsFileSource(FileSource(path))


async def refusal_of(source: CredentialsFileSource) -> str:
    with pytest.raises(SourceMisconfigured) as caught:
        await source.read()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert "planted" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["web", "installed"])
async def test_both_kinds_of_client_are_read(tmp_path: Path, kind: str) -> None:
    client = await source_of(tmp_path, {kind: {**CLIENT, "project_id": "p"}}).read()
    assert client.client_id == CLIENT["client_id"]
    assert client.client_secret.reveal() == CLIENT["client_secret"]


async def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    source = source_of(tmp_path, "\ufeff" + json.dumps({"web": CLIENT}))
    assert (await source.read()).client_id == CLIENT["client_id"]


async def test_a_replaced_file_is_the_next_version(tmp_path: Path) -> None:
    source = source_of(tmp_path, {"web": CLIENT})
    before = await source.read()
    source_of(tmp_path, {"web": {**CLIENT, "client_secret": "another"}})
    after = await source.read()
    assert (before.version, after.version) == (1, 2)
    assert after.client_secret.reveal() == "another"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"type": "service_account", "private_key": "planted"}, "a service account's key"),
        ({"type": "authorized_user", "refresh_token": "planted"}, "one user's saved credentials"),
        ({"type": "external_account"}, "workload identity federation"),
        ({"token": "planted", "refresh_token": "planted"}, "one user's saved token"),
        (CLIENT, "neither `web` nor `installed`"),
        ({"web": "planted"}, "neither `web` nor `installed`"),
        (["planted"], "without an object"),
    ],
)
async def test_another_kind_of_file_is_named(tmp_path: Path, content: object, named: str) -> None:
    message = await refusal_of(source_of(tmp_path, content))
    assert named in message
    assert "type Web application" in message


@pytest.mark.parametrize("field", ["client_id", "client_secret"])
async def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    partial = {name: value for name, value in CLIENT.items() if name != field}
    assert f"has no field `{field}`" in await refusal_of(source_of(tmp_path, {"web": partial}))


@pytest.mark.parametrize("value", ["", "  ", 7, ["planted"]])
async def test_a_field_that_is_not_text_is_rejected(tmp_path: Path, value: object) -> None:
    source = source_of(tmp_path, {"web": {**CLIENT, "client_secret": value}})
    assert "`client_secret` must be a non-empty text" in await refusal_of(source)


@pytest.mark.parametrize(
    "text", ["", '{"web": {"client_secret": "planted', "[" * 50_000, '{"web": %s}' % ("9" * 5000)]
)
async def test_a_file_that_is_not_json_is_rejected(tmp_path: Path, text: str) -> None:
    assert "is not JSON" in await refusal_of(source_of(tmp_path, text))


async def test_a_binary_file_is_rejected(tmp_path: Path) -> None:
    source = source_of(tmp_path, "")
    (tmp_path / "credentials.json").write_bytes(b"planted\xff\xfe")
    assert "is not text" in await refusal_of(source)


async def test_a_huge_file_is_rejected(tmp_path: Path) -> None:
    assert "much larger" in await refusal_of(source_of(tmp_path, "planted" * 20_000))


async def test_a_missing_file_is_named(tmp_path: Path) -> None:
    source = CredentialsFileSource(FileSource(tmp_path / "nowhere.json"))
    message = await refusal_of(source)
    assert "nowhere.json: No such file or directory" in message


async def test_a_folder_is_rejected(tmp_path: Path) -> None:
    assert "Is a directory" in await refusal_of(CredentialsFileSource(FileSource(tmp_path)))


# ---- the environment


def source_of_files(folder: Path) -> EnvironmentClientSource:
    (folder / "id").write_text("an-id\n")
    (folder / "secret").write_text("first\n")
    return EnvironmentClientSource(
        EnvironmentSource(
            client_id=ConfiguredSecret("GOOGLE_CLIENT_ID", path=folder / "id"),
            client_secret=ConfiguredSecret("GOOGLE_CLIENT_SECRET", path=folder / "secret"),
        )
    )


async def test_the_values_are_the_client() -> None:
    source = EnvironmentClientSource(
        EnvironmentSource(
            client_id=ConfiguredSecret("GOOGLE_CLIENT_ID", value=Secret("an-id")),
            client_secret=ConfiguredSecret("GOOGLE_CLIENT_SECRET", value=Secret("a-secret")),
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


async def test_unchanged_files_keep_the_version(tmp_path: Path) -> None:
    source = source_of_files(tmp_path)
    assert await source.read() == await source.read()


async def test_a_removed_secret_file_is_named(tmp_path: Path) -> None:
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


async def test_a_client_id_with_a_line_break_is_rejected(tmp_path: Path) -> None:
    source = source_of_files(tmp_path)
    (tmp_path / "id").write_text("two\nlines")
    with pytest.raises(SourceMisconfigured, match="`client_id` holds a character"):
        await source.read()
