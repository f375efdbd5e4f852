import secrets
import string
from pathlib import Path

import pytest

from checks.secrets import find_secrets, main

_LETTERS = string.ascii_letters + string.digits


def _random(length: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(length))


@pytest.mark.parametrize(
    "secret",
    [
        "ya29." + _random(180),
        "1//0" + _random(90),
        "GOCSPX-" + _random(28),
        "tb_" + _random(43),
        "whsec_" + _random(32),
        "hvs." + _random(24),
        "postgresql://broker:" + _random(24) + "@db.example.com/broker",
        "-----BEGIN RSA PRIVATE " + "KEY-----",
        "AKIA" + "".join(secrets.choice(string.ascii_uppercase) for _ in range(16)),
    ],
    ids=lambda secret: secret[:3],
)
def test_a_planted_secret_is_found_and_not_repeated(
    tmp_path: Path, secret: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.py"
    file.write_text(f'# A file.\nVALUE = "{secret}"\n')
    assert main([str(file)]) == 1
    told = capsys.readouterr().out
    assert f"{file}:2: " in told
    assert secret not in told


def test_a_sample_address_is_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text("Write postgresql://user:password@host/name.\n")  # pragma: allowlist secret
    assert find_secrets([str(file)]) == []


def test_what_is_marked_as_made_up_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "sample.py"
    file.write_text(f'KEY = "tb_{_random(43)}"  # pragma: allowlist secret\n')
    assert find_secrets([str(file)]) == []
