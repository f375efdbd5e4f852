"""The grant that a consent makes, without a database."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from broker.grants.model import GrantStatus
from broker.grants.writer import consented_grant
from tests.grants.test_model import CONSENT, GRANT

_NOW = datetime(2026, 2, 1, tzinfo=UTC)


def test_a_first_consent_makes_a_new_grant() -> None:
    grant = consented_grant(CONSENT, None, _NOW)
    assert grant.id != GRANT.id
    assert (grant.status, grant.scopes) == (GrantStatus.ACTIVE, CONSENT.scopes)
    assert (grant.connected_at, grant.consented_at) == (_NOW, _NOW)


def test_a_later_consent_keeps_the_grants_id() -> None:
    assert consented_grant(CONSENT, GRANT, _NOW).id == GRANT.id


def test_a_confirmed_consent_keeps_the_time_when_it_was_given() -> None:
    given_at = _NOW - timedelta(minutes=5)
    grant = consented_grant(replace(CONSENT, given_at=given_at), GRANT, _NOW)
    assert (grant.consented_at, grant.updated_at) == (given_at, _NOW)
