"""Link tokens: signed, for one user, until they expire."""

from datetime import timedelta
from uuid import UUID

import pytest

from broker.consent.links import CONNECT_LINK_LIFETIME, ConnectLink, LinkTokenFault, LinkTokens
from broker.crypto.signing import Signer
from broker.secret import Secret
from tests.consent.samples import NOW, a_link

OLD_KEY = Secret("the former secret key, of 32 bytes and more")
NEW_KEY = Secret("the current secret key, of 32 bytes or more")


def tokens(*keys: Secret) -> LinkTokens:
    """Tokens signed with the first of these keys."""
    return LinkTokens(Signer(keys or (NEW_KEY,), "links"))


PLAIN = a_link()
CONFIRMED = a_link(confirm=True)


@pytest.mark.parametrize("link", [PLAIN, CONFIRMED], ids=["plain", "confirmed"])
def test_a_token_names_its_link(link: ConnectLink) -> None:
    token = tokens().issue(link)
    assert tokens().verify(token, user_id="alice", now=NOW) == link.id
    assert tokens().requires_confirmation(token, user_id="alice") is link.confirm


@pytest.mark.parametrize(
    ("user_id", "later", "fault"),
    [
        ("bob", timedelta(0), LinkTokenFault.NOT_OURS),
        ("alice", CONNECT_LINK_LIFETIME, LinkTokenFault.EXPIRED),
        ("bob", CONNECT_LINK_LIFETIME, LinkTokenFault.NOT_OURS),
    ],
)
def test_a_token_is_rejected(user_id: str, later: timedelta, fault: LinkTokenFault) -> None:
    token = tokens().issue(PLAIN)
    assert tokens().verify(token, user_id=user_id, now=NOW + later) is fault


@pytest.mark.parametrize("unverified", ["", "x", "0" * 32 + ".1." + "A" * 43, "x" * 10_000])
def test_a_token_of_another_origin_is_rejected(unverified: str) -> None:
    assert tokens().verify(unverified, user_id="alice", now=NOW) is LinkTokenFault.NOT_OURS


def test_a_token_stays_valid_while_its_key_is_configured() -> None:
    token = tokens(OLD_KEY).issue(PLAIN)
    assert tokens(NEW_KEY, OLD_KEY).verify(token, user_id="alice", now=NOW) == PLAIN.id
    assert tokens(NEW_KEY).verify(token, user_id="alice", now=NOW) is LinkTokenFault.NOT_OURS


@pytest.mark.parametrize(
    ("redirect_uri", "user_id", "start", "is_https"),
    [
        (
            "https://app.example.com/auth/google/callback",
            "a/b ü",
            "https://app.example.com/auth/google/authorize/a%2Fb%20%C3%BC?link=",
            True,
        ),
        (
            "http://localhost:8000/auth/google/callback",
            "42",
            "http://localhost:8000/auth/google/authorize/42?link=",
            False,
        ),
    ],
)
def test_the_url_of_a_link(redirect_uri: str, user_id: str, start: str, is_https: bool) -> None:
    link = a_link(redirect_uri=redirect_uri, user_id=user_id, id=UUID(int=7))
    assert tokens().url(link).startswith(start)
    assert link.is_https is is_https
