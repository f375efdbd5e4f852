import secrets
import string
import subprocess
from base64 import b64encode
from pathlib import Path

import pytest

from checks.secrets import find_secrets, main

_LETTERS = string.ascii_letters + string.digits


def _random(length: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(length))


def _mixed(length: int) -> str:
    """Return letters of both cases and a digit, as a generator does."""
    return "aA1" + _random(length - 3)


def _begin(kind: str) -> str:
    return f"-----BEGIN {kind}PRIVATE" + " KEY-----"


@pytest.mark.parametrize(
    "secret",
    [
        "ya29." + _random(180),
        "1//0" + _random(90),
        "GOCSPX-" + _random(28),
        "AIza" + _random(35),
        "tb_" + _random(43),
        "whsec_" + _random(32),
        "hvs." + _random(24),
        "postgresql://broker:" + _random(24) + "@db.example.com/broker",
        "postgresql://broker:" + _random(6) + "%2F!$*" + _random(6) + "@db.example.com/broker",
        *(_begin(kind) for kind in ("", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED ")),
        *(b64encode(_begin(k).encode() * 2).decode() for k in ("", "RSA ", "EC ", "OPENSSH ")),
        "AKIA" + "".join(secrets.choice(string.ascii_uppercase) for _ in range(16)),
        "ghp_" + _random(36),
        "github_pat_" + _random(22) + "_" + _random(59),
        "npm_" + _random(36),
        "sk-ant-api03-" + _random(90),
        "SECRET_KEY=" + _mixed(64),
        "SECRET_KEY: " + secrets.token_hex(32),
        "GOOGLE_CLIENT_SECRET=" + _mixed(24),
        "AWS_SECRET_ACCESS_KEY=" + _mixed(40),
    ],
    ids=lambda secret: secret[:3],
)
def test_a_planted_secret_is_found_and_not_repeated(
    tmp_path: Path, secret: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.py"
    file.write_text(f'# A file.\nVALUE = "{secret}"\n')
    assert main([str(file)]) == 1
    printed = capsys.readouterr().out
    assert f"{file}:2: " in printed
    assert secret not in printed


@pytest.mark.parametrize(
    "line",
    [
        'KEY = Secret("{}")',
        'client = OAuthClient("id", secret="{}")',
        "headers = {{'Authorization': f('{}')}}",
        "keys: [{}]",
        "/* {} */",
        "<!-- {} -->",
        "; key={}",
    ],
)
@pytest.mark.parametrize("name", ["a.py", "a.yaml", "a.css", "a.svg", "a.lock", "a.ini", ".env"])
def test_no_kind_of_file_or_line_hides_a_secret(tmp_path: Path, name: str, line: str) -> None:
    file = tmp_path / name
    file.write_text("[section]\n" + line.format("tb_" + _random(43)) + "\n")
    assert find_secrets([str(file)]) == [f"{file}:2: broker credential"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1", "utf-16"])
def test_no_encoding_hides_a_secret(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "notes.txt"
    file.write_text(f"Café\nkey=tb_{_random(43)}\n", encoding=encoding)
    assert find_secrets([str(file)]) == [f"{file}:2: broker credential"]


@pytest.mark.parametrize(
    "line",
    [
        "SECRET_KEY=$(openssl rand -base64 48)",
        "SECRET_KEY={{ .Values.secretKey }}",
        "SECRET_KEY: <at least 32 random bytes>",
        "GOOGLE_CLIENT_SECRET_FILE=/run/secrets/google-client-secret",
        "DATABASE_URL=postgresql://broker:$PASSWORD@db/broker",
        "DATABASE_URL=postgresql://broker:{password}@db/broker",
        'settings["SECRET_KEY"] = settings.secret_key.reveal()',
    ],
)
def test_a_placeholder_is_no_secret(tmp_path: Path, line: str) -> None:
    file = tmp_path / "sample.env"
    file.write_text(line + "\n")
    assert find_secrets([str(file)]) == []


def test_a_sample_address_is_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text("Write postgresql://user:password@host/name.\n")  # pragma: allowlist secret
    assert find_secrets([str(file)]) == []


def test_a_line_that_is_marked_as_made_up_is_skipped(tmp_path: Path) -> None:
    file = tmp_path / "sample.py"
    file.write_text(f'KEY = "tb_{_random(43)}"  # pragma: allowlist secret\n')
    assert find_secrets([str(file)]) == []


def test_every_file_that_a_commit_would_publish_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The locks too: a private index may have its password in them."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)
    names = ["requirements/run.txt", "checks/a.py", "tests/b.py", ".env", "new file"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"--index-url https://me:{_random(20)}@index.example/simple\n")
    assert main([]) == 1
    printed = capsys.readouterr().out
    assert all(f"{name}:1: " in printed for name in names)
