"""What a pending consent becomes when it is confirmed, without a database."""

from dataclasses import replace

import pytest

from broker.grants.model import Consent, Grant
from broker.grants.pending_consents.model import decide_confirmation
from tests.grants.test_model import CONSENT, GRANT

_SEEN = GRANT.version
_EARLIER = GRANT.version - 1
_ALL = replace(CONSENT, scopes=("openid", "calendar", "drive"))
_OTHER = replace(CONSENT, scopes=("openid", "drive"))
_ADDED = replace(
    CONSENT, scopes=("openid", "calendar", "drive"), refresh_token=None, access_token=None
)


@pytest.mark.parametrize(
    ("consent", "live", "seen_version", "has_same_token", "expected"),
    [
        (CONSENT, None, None, False, CONSENT),
        (CONSENT, None, _EARLIER, False, CONSENT),
        (CONSENT, GRANT, _SEEN, False, CONSENT),
        (_ALL, GRANT, _EARLIER, False, _ALL),
        (CONSENT, GRANT, _EARLIER, False, GRANT),
        (CONSENT, GRANT, _EARLIER, True, GRANT),
        (CONSENT, GRANT, None, False, GRANT),
        (_OTHER, GRANT, _EARLIER, False, None),
        (_OTHER, GRANT, _EARLIER, True, _ADDED),
    ],
    ids=[
        "no grant",
        "the grant was revoked meanwhile",
        "the grant is unchanged, so that the consent may remove scopes",
        "the grant changed, and the consent has all its scopes",
        "a later consent includes this one",
        "a later consent includes this one, with the same token",
        "the grant was connected meanwhile and includes this one",
        "a later consent contradicts this one",
        "both have the same token, which can fetch the scopes of both",
    ],
)
def test_a_confirmed_consent_replaces_adds_to_or_yields_to_the_grant(
    consent: Consent,
    live: Grant | None,
    seen_version: int | None,
    has_same_token: bool,
    expected: Consent | Grant | None,
) -> None:
    decision = decide_confirmation(
        consent, live, seen_version=seen_version, has_same_token=has_same_token
    )
    assert decision == expected
