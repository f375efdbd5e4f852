"""Detectors for what this project handles, for the secret scan: shapes that no file may have."""

import re

from detect_secrets.plugins.base import RegexBasedDetector


class GoogleCredentialDetector(RegexBasedDetector):
    """What Google issues: access and refresh tokens, client secrets, authorization codes."""

    secret_type = "Google OAuth credential"  # noqa: S105  (a name)
    denylist = (
        re.compile(r"\bya29\.[A-Za-z0-9_-]{60,}"),
        re.compile(r"\b1//0[A-Za-z0-9_-]{60,}"),
        re.compile(r"\b4/0A[A-Za-z0-9_-]{60,}"),
        re.compile(r"\bGOCSPX-[A-Za-z0-9_-]{28}\b"),
    )


class BrokerCredentialDetector(RegexBasedDetector):
    """What the broker issues or is given: callers' keys, webhook secrets, Vault's tokens."""

    secret_type = "broker credential"  # noqa: S105  (a name)
    denylist = (
        re.compile(r"\btb_[A-Za-z0-9_-]{43}\b"),
        re.compile(r"\bwhsec_[A-Za-z0-9+/]{32,}={0,2}"),
        re.compile(r"\bhv[sbr]\.[A-Za-z0-9_-]{24,}"),
        re.compile(r"\bs\.[A-Za-z0-9]{24}\b"),
    )
