"""`broker callers`: its output, and how it rejects bad input."""

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.callers.callers_file import parse_callers
from broker.callers.keys import hash_key
from broker.callers.model import Permission, RateLimit, Workload
from broker.callers.registry import read_callers
from broker.cli.callers import callers
from tests.callers.stanzas import CONTRACT, KEY, SCOPE, callers_file, stanza

ENOUGH = ("--can", "tokens:read", "--scope", SCOPE, "--user", "*")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BROKER_CALLERS_FILE", raising=False)
    monkeypatch.delenv("GOOGLE_SCOPES", raising=False)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The callers file in use, with the example of the contract."""
    file = tmp_path / "callers.yaml"
    file.write_text(CONTRACT)
    monkeypatch.setenv("BROKER_CALLERS_FILE", str(file))
    return file


def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(callers, list(arguments), input=stdin)


def refusal(*arguments: str, stdin: str | bytes | None = None) -> str:
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


# ---- new


def test_new_prints_a_key_once_and_the_stanza_that_admits_it() -> None:
    result = run(
        "new", "sync", "--can", "tokens:read,links:create", "--can", "grants:read", "--scope",
        SCOPE, "--user", "team-*", "--user", "42", "--return-to", "https://app.example.com/x",
        "--require-confirmation", "--display-name", 'Acme "Sync" für alle',
    )  # fmt: skip

    key, empty, *lines = result.stdout.splitlines()
    (caller,) = parse_callers("\n".join(lines)).callers
    assert result.exit_code == 0
    assert empty == ""
    assert result.output.count(key) == 1
    assert caller.name == "sync"
    assert caller.key_hashes == {bytes.fromhex(hash_key(key).removeprefix("sha256:"))}
    assert caller.permissions == set(Permission) - {Permission.GRANTS_REVOKE}
    assert caller.scopes == (SCOPE,)
    assert caller.users == ("team-*", "42")
    assert caller.return_to == ("https://app.example.com/x",)
    assert caller.require_confirmation is True
    assert caller.display_name == 'Acme "Sync" für alle'


def test_new_explains_on_stderr_where_each_part_belongs() -> None:
    result = run("new", "sync", *ENOUGH)

    assert "The key of sync, which is shown only once" in result.stderr
    assert "BROKER_CALLERS_FILE" in result.stderr
    assert result.stdout.splitlines()[0] not in result.stderr


def test_new_stanza_can_be_appended_to_the_file_in_use(file: Path, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    result = run("new", "mail", *ENOUGH, "--key-file", str(key_file))
    with file.open("a") as text:
        text.write(result.stdout)

    listed = read_callers(file).callers
    assert [caller.name for caller in listed] == ["calendar-sync", "mail"]
    digest = bytes.fromhex(hash_key(key_file.read_text()).removeprefix("sha256:"))
    assert listed[1].key_hashes == {digest}


def test_the_key_file_of_new_is_private_and_holds_only_the_key(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    result = run("new", "mail", *ENOUGH, "--key-file", str(key_file))

    key = key_file.read_text()
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert key == key.strip()
    assert key not in result.output


def test_new_does_not_overwrite_a_file(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("precious")

    assert "File exists" in refusal("new", "mail", *ENOUGH, "--key-file", str(key_file))
    assert key_file.read_text() == "precious"


def test_new_rejects_an_existing_name(file: Path) -> None:
    assert "broker callers rotate calendar-sync" in refusal("new", "calendar-sync", *ENOUGH)
    assert file.read_text() == CONTRACT


def test_new_warns_of_an_invalid_callers_file(file: Path) -> None:
    file.write_text("callers: 1")
    result = run("new", "sync", *ENOUGH)

    assert result.exit_code == 0
    assert "broker callers check" in result.stderr


WORKLOAD = (
    "--workload-issuer", "https://kubernetes.default.svc", "--workload-audience", "token-broker",
    "--workload-subject", "system:serviceaccount:prod:sync",
)  # fmt: skip


def test_new_for_a_workload_prints_a_stanza_and_no_key() -> None:
    result = run("new", "sync", *ENOUGH, *WORKLOAD, "--subject-required")

    (caller,) = parse_callers(result.stdout).callers
    assert result.exit_code == 0
    assert "tb_" not in result.output
    assert caller.key_hashes == frozenset()
    assert caller.subject_required is True
    assert caller.workload == Workload(
        "https://kubernetes.default.svc", "token-broker", "system:serviceaccount:prod:sync"
    )
    assert "holds no secret" in result.stderr


@pytest.mark.parametrize("left_out", range(0, len(WORKLOAD), 2))
def test_new_for_a_workload_requires_all_three_options(left_out: int) -> None:
    given = WORKLOAD[:left_out] + WORKLOAD[left_out + 2 :]
    assert f"{WORKLOAD[left_out]} is missing" in refusal("new", "sync", *ENOUGH, *given)


def test_new_for_a_workload_requires_https() -> None:
    plain = ("--workload-issuer", "http://example.com", *WORKLOAD[2:])
    assert "--workload-issuer: 'http://example.com' must be" in refusal(
        "new", "sync", *ENOUGH, *plain
    )


def test_new_for_a_workload_makes_no_key(tmp_path: Path) -> None:
    with_file = refusal("new", "sync", *ENOUGH, *WORKLOAD, "--key-file", str(tmp_path / "key"))
    assert "a workload has no key" in with_file


@pytest.mark.parametrize("name", ["on", "123", "1e3", "null"])
def test_new_quotes_a_name_that_yaml_would_misread(name: str) -> None:
    result = run("new", name, *ENOUGH)

    assert parse_callers(result.stdout.partition("\n")[2]).callers[0].name == name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bad name", *ENOUGH], "NAME: 'bad name' can't be a name"),
        (["sync", *ENOUGH, "--can", "token:read"], "did you mean 'tokens:read'?"),
        (["sync", *ENOUGH, "--scope", 'a"b'], "--scope: "),
        (["sync", *ENOUGH, "--user", ""], "--user: must not be empty"),
        (["sync", *ENOUGH, "--return-to", "/x"], "--return-to: '/x' must be an absolute address"),
        (["sync", "--user", "*", "--scope", SCOPE], "--can is missing: any of tokens:read"),
        (["sync", "--can", "grants:read"], "--user is missing"),
        (["sync", "--can", "tokens:read", "--user", "*"], "--scope is missing"),
    ],
)
def test_new_rejects_bad_input_with_one_line(arguments: list[str], words: str) -> None:
    assert words in refusal("new", *arguments)


def test_new_lists_all_bad_options() -> None:
    text = refusal("new", "a b", "--can", "fly", "--return-to", "x")

    assert all(option in text for option in ("NAME", "--can", "--return-to", "--user"))


# ---- rotate


def test_rotate_prints_a_new_key_in_addition_to_the_old_ones(file: Path) -> None:
    result = run("rotate", "calendar-sync")

    key, _, line = result.stdout.splitlines()
    old_line = f'    keys: ["{hash_key(KEY)}"]'
    assert line == f'    keys: ["{hash_key(KEY)}", "{hash_key(key)}"]'
    assert len(parse_callers(CONTRACT.replace(old_line, line)).callers[0].key_hashes) == 2
    assert file.read_text() == CONTRACT


def test_rotate_rejects_a_name_that_is_not_in_the_file(file: Path) -> None:
    text = refusal("rotate", "calender-sync")

    assert f"{file} has no 'calender-sync'; did you mean 'calendar-sync'?" in text


def test_rotate_requires_a_callers_file() -> None:
    assert "BROKER_CALLERS_FILE" in refusal("rotate", "x")


# ---- hash


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_hash_prints_the_hash_of_the_key_on_stdin(end: str) -> None:
    result = run("hash", stdin=KEY + end)

    assert result.stdout == hash_key(KEY) + "\n"


@pytest.mark.parametrize("key", [b"", b"short", b"with spaces in between them", b"\xff" * 30])
def test_hash_rejects_what_is_not_a_key(key: bytes) -> None:
    assert "a key" in refusal("hash", stdin=key)


# ---- check


def test_check_lists_the_callers(file: Path) -> None:
    result = run("check")

    header, row = result.stdout.splitlines()
    assert result.exit_code == 0
    assert header.split() == ["CALLER", "KEYS", "MAY", "RATE", "USERS", "SCOPES"]
    assert row.split() == [
        "calendar-sync",
        "1+JWT",
        "tokens:read,links:create,grants:read,grants:revoke",
        "-",
        "*",
        "calendar.readonly",
    ]


def test_check_reads_another_file_or_stdin(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(callers_file(stanza("mail")))

    assert "mail" in run("check", str(other)).stdout
    assert "mail" in run("check", "-", stdin=other.read_text()).stdout


def test_check_lists_all_problems_and_no_key(file: Path) -> None:
    file.write_text(CONTRACT.replace(hash_key(KEY), KEY).replace("tokens:read", "token:read"))
    result = run("check")

    assert result.exit_code == 1
    assert result.stdout == ""
    first, *problems = result.stderr.splitlines()
    assert first == f"Error: {file} has 2 problems:"
    assert [line.partition(": ")[0] for line in problems] == [
        "  - callers.calendar-sync.can[0] (line 8)",
        "  - callers.calendar-sync.keys[0] (line 3)",
    ]
    assert KEY not in result.output


def test_check_reports_scopes_that_the_broker_may_not_request(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_SCOPES", "https://www.googleapis.com/auth/tasks")
    result = run("check")

    assert result.exit_code == 0
    assert f"'{SCOPE}' is not in GOOGLE_SCOPES" in result.stderr


def test_check_rejects_a_missing_file_with_one_line(tmp_path: Path) -> None:
    assert "No such file or directory" in refusal("check", str(tmp_path / "none.yaml"))


def test_check_requires_a_file() -> None:
    assert "name a FILE" in refusal("check")


@pytest.mark.parametrize("command", [[], ["new"], ["rotate"], ["hash"], ["check"]])
def test_every_command_of_callers_has_help(command: list[str]) -> None:
    result = run(*command, "--help")

    assert result.exit_code == 0
    assert "Usage: " in result.stdout


def test_new_writes_a_rate_limit_and_check_shows_it() -> None:
    made = run("new", "sync", *ENOUGH, "--requests-per-second", "2.5", "--burst", "40")
    stanza_text = made.stdout.partition("\n\n")[2]
    (caller,) = parse_callers(stanza_text).callers
    assert caller.rate_limit == RateLimit(2.5, 40)
    assert "2.5/s,40" in run("check", "-", stdin=stanza_text).stdout


def test_a_burst_requires_a_rate() -> None:
    assert "--requests-per-second" in refusal("new", "sync", *ENOUGH, "--burst", "40")
