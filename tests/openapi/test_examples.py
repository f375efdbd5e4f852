"""The code that the documents show works as it stands."""

import re

import pytest

from tests.docs.documents import blocks, text_of
from tests.openapi.served import Served


@pytest.mark.parametrize("document", ["README.md", "docs/how-to/add-the-broker-to-a-service.md"])
def test_the_python_shown_gets_a_token(document: str, served: Served) -> None:
    (shown,) = blocks(text_of(document), "python")
    names = {
        "BROKER": served.internal_url,
        "BROKER_KEY": served.key,
        "KEY": served.key,
        "user_id": served.user_id,
    }
    exec(shown, names)
    token = names["token"] if "token" in names else names["google_token"]("alice")  # type: ignore[operator]
    assert re.match(r"ya29\.", str(token))


def test_a_service_needs_five_lines() -> None:
    (shown,) = blocks(text_of("README.md"), "python")
    code = [line for line in shown.splitlines() if line and not line.startswith("import ")]
    assert len(code) <= 5
