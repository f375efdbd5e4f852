"""Fixtures of the tests of `broker.google`."""

import pytest

from broker.secret import Secret
from broker.secret_sources.source import OAuthClient
from tests.google.scripted_google import ScriptedGoogle


@pytest.fixture
def google() -> ScriptedGoogle:
    return ScriptedGoogle()


@pytest.fixture
def client() -> OAuthClient:
    return OAuthClient("client-id", Secret("GOCSPX-s+e/c&ret"), 1)
