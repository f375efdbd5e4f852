"""Detectors for the secrets of this project: shapes that no file may contain.

Also detectors for well-known services that detect-secrets lacks or knows by an older shape.
"""

import re

from detect_secrets.plugins.base import RegexBasedDetector

_RANDOM = r"(?=[^\s\"']*[a-z])(?=[^\s\"']*[A-Z])(?=[^\s\"']*[0-9])[A-Za-z0-9+/_-]{20,}={0,2}"
"""Letters of both cases and digits: generated, hardly a word that a person writes."""


class GoogleCredentialDetector(RegexBasedDetector):
    """Google's access and refresh tokens, client secrets, codes and API keys."""

    secret_type = "Google OAuth credential"  # noqa: S105  (a name)
    denylist = (
        re.compile(r"\bya29\.[A-Za-z0-9_-]{60,}"),
        re.compile(r"\b1//0[A-Za-z0-9_-]{60,}"),
        re.compile(r"\b4/0A[A-Za-z0-9_-]{60,}"),
        re.compile(r"\bGOCSPX-[A-Za-z0-9_-]{28}\b"),
        re.compile(r"\bAIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
    )


class BrokerCredentialDetector(RegexBasedDetector):
    """The broker's credentials: callers' keys, webhook secrets, Vault tokens."""

    secret_type = "broker credential"  # noqa: S105  (a name)
    denylist = (
        re.compile(r"\btb_[A-Za-z0-9_-]{43}\b"),
        re.compile(r"\bwhsec_[A-Za-z0-9+/]{32,}={0,2}"),
        re.compile(r"\bhv[sbr]\.[A-Za-z0-9_-]{24,}"),
        re.compile(r"\bs\.[A-Za-z0-9]{24}\b"),
    )


class SettingDetector(RegexBasedDetector):
    """A secret setting with a random value, in an environment file, a manifest or a sample."""

    secret_type = "value of a secret setting"  # noqa: S105  (a name)
    denylist = (
        re.compile(
            r"(?i:(?:SECRET_KEY|CLIENT_SECRET|WEBHOOK_SECRET|SECRET_ID|SECRET_ACCESS_KEY"
            r"|VAULT_TOKEN|_PASSWORD))[\"']?\]?\s*[:=]\s*[\"']?"
            rf"({_RANDOM}|[0-9a-f]{{32,}})"
        ),
    )


class AddressPasswordDetector(RegexBasedDetector):
    """A password in a URL, with characters that end a match of detect-secrets' own detector."""

    secret_type = "password in an address"  # noqa: S105  (a name)
    denylist = (
        re.compile(r"://[^\s:/?#@\[\]\"'`{}<>$]+:(?!\$)([^\s/?#@\"'`{}<>]{9,})@[A-Za-z0-9\[]"),
    )


class PrivateKeyShapeDetector(RegexBasedDetector):
    """Private keys with a passphrase, of newer kinds, or in base64 as in a Kubernetes Secret."""

    secret_type = "private key"  # noqa: S105  (a name)
    denylist = (
        re.compile(r"BEGIN ENCRYPTED PRIVATE[ ]KEY"),
        re.compile(r"PuTTY-User-Key-File-[3]"),
        re.compile(r"\bAGE-SECRET-KEY-1[A-Z0-9]{50,}"),
        # "-----BEGIN " and then PRIVATE, RSA, EC, OPENSSH, ENCRYPTED; not a certificate.
        re.compile(r"LS0tLS1CRUdJTi(?:BQUklW|BSU0Eg|BFQyBQ|BPUEVO|BFTkNS)[A-Za-z0-9+/]{8,}"),
    )


class ServiceTokenDetector(RegexBasedDetector):
    """Tokens of services, by their prefixes."""

    secret_type = "token of a service"  # noqa: S105  (a name)
    denylist = (
        re.compile(r"\bgithub_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}\b"),
        re.compile(r"\bnpm_[A-Za-z0-9]{36}\b"),
        re.compile(r"\bdckr_pat_[A-Za-z0-9_-]{27}"),
        re.compile(r"\bhf_[A-Za-z]{34}\b"),
        re.compile(r"\bxapp-[0-9]-[A-Z0-9]+-[0-9]+-[a-z0-9]{20,}"),
        re.compile(r"\bsk-(?:ant|proj)-[A-Za-z0-9_-]{40,}"),
    )


DETECTORS = (
    GoogleCredentialDetector,
    BrokerCredentialDetector,
    SettingDetector,
    AddressPasswordDetector,
    PrivateKeyShapeDetector,
    ServiceTokenDetector,
)
