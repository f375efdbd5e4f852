"""No problem and no `repr` of the settings shows a value."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.settings import SECRET_NAMES, SettingsError, load_settings
from tests.settings.environments import CALLBACK, GOOD, KEY, VAULT, load

PLANTED = "hunter2"
EVERY_NAME = [
    *GOOD, "GOOGLE_CREDENTIALS_FILE", "GOOGLE_DISCOVERY_URL", "DATABASE_REPLICA_URL",
    "BROKER_SECRET_SOURCE", "VAULT_ADDR", "VAULT_NAMESPACE", "VAULT_AUTH", "VAULT_TOKEN",
    "VAULT_ROLE_ID", "VAULT_SECRET_ID", "VAULT_ROLE", "VAULT_KV_MOUNT", "VAULT_KV_PATH",
    "VAULT_TRANSIT_KEY", "AWS_SECRET_ID", "AWS_REGION", "AWS_ENDPOINT_URL", "BROKER_KEY_SOURCE",
    "BROKER_ACCESS_TOKENS", "BROKER_LOG_LEVEL", "BROKER_PUBLIC_LISTEN", "BROKER_INTERNAL_LISTEN",
    "BROKER_OPS_LISTEN", *(f"{name}_FILE" for name in sorted(SECRET_NAMES)),
]  # fmt: skip
SHAPES = [
    PLANTED,
    PLANTED * 10,
    f"{PLANTED}:8000",
    f"{PLANTED}:99999",
    f"/{PLANTED}",
    f"/{PLANTED}/{PLANTED}",
    f"http://{PLANTED}.example.com/{PLANTED}",
    f"https://{PLANTED}:{PLANTED}@example.com:{PLANTED}/{PLANTED}?{PLANTED}",
    f"https://{PLANTED}.example.com{CALLBACK}?{PLANTED}#{PLANTED}",
    f"https://[{PLANTED}",
    f"postgresql://{PLANTED}:{PLANTED}@{PLANTED}:{PLANTED}/{PLANTED}?{PLANTED}",
    f"{PLANTED},{PLANTED}",
    f'{PLANTED} "{PLANTED}"',
    f"{PLANTED}\udcff",
    f"{PLANTED}\0",
    PLANTED * 1000,
]
VALUES: Any = st.dictionaries(
    st.sampled_from(EVERY_NAME), st.sampled_from(SHAPES) | st.just(""), max_size=len(EVERY_NAME)
)
SOURCES: Any = st.fixed_dictionaries(
    {
        "BROKER_SECRET_SOURCE": st.sampled_from(["env", "file", "vault", "aws", PLANTED]),
        "VAULT_AUTH": st.sampled_from(["token", "approle", "jwt", PLANTED]),
    }
)


@settings(max_examples=300, deadline=None)
@given(planted=VALUES, source=SOURCES)
def test_no_problem_shows_a_value(planted: dict[str, str], source: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings({**GOOD, **planted, **source, "BROKER_KEY_SOURCE": "nowhere"})
    assert PLANTED not in str(raised.value).lower()


@pytest.mark.parametrize("name", EVERY_NAME)
@pytest.mark.parametrize("shape", SHAPES)
def test_no_problem_shows_the_value_of_a_single_setting(shape: str, name: str) -> None:
    broken = dict.fromkeys((*GOOD, "BROKER_LOG_LEVEL"), "")
    with pytest.raises(SettingsError) as raised:
        load_settings({**broken, name: shape, "BROKER_OPS_LISTEN": "nowhere"})
    assert PLANTED not in str(raised.value).lower()


def test_the_settings_show_no_secret() -> None:
    shown = repr(load()) + repr(load({"VAULT_TOKEN": PLANTED}, VAULT))
    for value in ("the-client-secret", "pass@db", KEY, PLANTED):
        assert value not in shown
