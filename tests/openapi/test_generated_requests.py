"""Requests made up from `openapi.yaml`, good and bad ones: the running broker keeps to it."""

from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any, TypeVar, cast
from unicodedata import category
from urllib.parse import quote, unquote

import schemathesis
from hypothesis import HealthCheck, assume, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    ignored_auth,
    negative_data_rejection,
    positive_data_acceptance,
)

from tests.openapi.served import Served

DESCRIPTION = Path(__file__).parents[2] / "openapi.yaml"

CONFIG = {
    "generation": {"deterministic": True, "database": "none"},
    "checks": {
        "negative_data_rejection": {
            # 403 and 410 are also how a link is refused.
            "expected-statuses": ["400", "401", "403", "404", "405", "410", "413", "415"]
        },
    },
}

schemathesis.serializer.alias("application/secevent+jwt", "text/plain")

Case = schemathesis.Case[Any]
_Test = TypeVar("_Test", bound=Callable[..., None])


def each_request_to(paths: str) -> Callable[[_Test], _Test]:
    """Have a test meet a bounded number of requests to every operation whose path matches."""
    config = SchemathesisConfig.from_dict(CONFIG)
    description = schemathesis.openapi.from_path(DESCRIPTION, config=config)
    bounded = settings(
        max_examples=40,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )

    def decorate(test: _Test) -> _Test:
        chosen: Any = description.include(path_regex=paths)
        return cast(_Test, chosen.parametrize()(bounded(test)))

    return decorate


def _keep_to_what_a_schema_cannot_say(case: Case, served: Served) -> None:
    """Addresses are compared with the configuration, and "printable" has no regular expression."""
    if isinstance(case.body, dict):
        _replace_text(case.body, "return_to", lambda _: served.return_to)
        _replace_text(case.body, "redirect_uri", lambda _: served.redirect_uri)
        _replace_text(case.body, "login_hint", _printable)
    _replace_text(case.query, "account", _printable)
    _replace_text(case.path_parameters, "sub", lambda sub: quote(_printable(unquote(sub))))
    if case.method == "POST" and case.path_parameters.get("user_id") in (".", ".."):
        case.path_parameters["user_id"] = "..."


def _replace_text(members: MutableMapping[str, Any], name: str, by: Callable[[str], str]) -> None:
    if isinstance(members.get(name), str):
        members[name] = by(members[name])


def _printable(text: str) -> str:
    """The same, but for characters that are unprintable without being control characters."""
    return "".join(x if x.isprintable() or category(x) == "Cc" else "x" for x in text)


@each_request_to("^/v1/tokens$")
def test_a_batch_keeps_to_its_description(case: Case, served: Served) -> None:
    case.call_and_validate(
        base_url=served.internal_url,
        headers=served.authorization,
        # A value that is malformed is its item's error, not the batch's.
        excluded_checks=[negative_data_rejection],
    )


@each_request_to("^/v1/users/")
def test_the_internal_listener_keeps_to_its_description(case: Case, served: Served) -> None:
    _keep_to_what_a_schema_cannot_say(case, served)
    answer = case.call(base_url=served.internal_url, headers=served.authorization)
    # A generated query may be longer than any request may be, which no single path describes.
    assume(answer.status_code != 431)
    case.validate_response(answer, headers=served.authorization)


@each_request_to("^/v1/connect-links/")
def test_a_confirmation_keeps_to_its_description(case: Case, served: Served) -> None:
    case.call_and_validate(
        base_url=served.internal_url,
        headers=served.authorization,
        # No link that is made up waits for a confirmation.
        excluded_checks=[positive_data_acceptance],
    )


@each_request_to("^/oauth/token$")
def test_token_exchange_keeps_to_its_description(case: Case, served: Served) -> None:
    case.call_and_validate(
        base_url=served.internal_url,
        headers=served.authorization,
        # No JWT that is made up is ever good, and parameters that are not known are ignored.
        excluded_checks=[positive_data_acceptance, ignored_auth],
    )


@each_request_to("^/(auth|connections)")
def test_the_public_listener_keeps_to_its_description(case: Case, served: Served) -> None:
    case.call_and_validate(
        base_url=served.public_url,
        # No link, state, code or event that is made up is ever good.
        excluded_checks=[positive_data_acceptance],
        allow_redirects=False,
    )


@each_request_to("^/(livez|readyz|metrics)$")
def test_the_ops_listener_keeps_to_its_description(case: Case, served: Served) -> None:
    case.call_and_validate(base_url=served.ops_url)
