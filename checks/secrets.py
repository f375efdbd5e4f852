"""Looks for secrets in every tracked file, by way of detect-secrets; ends with 1 if there is one.

What only looks like a secret, such as a made-up password in a test, is marked where it stands:
`pragma: allowlist secret` in a comment on its line.
"""

import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from detect_secrets.core.potential_secret import PotentialSecret
from detect_secrets.core.secrets_collection import SecretsCollection
from detect_secrets.plugins.basic_auth import BasicAuthDetector
from detect_secrets.settings import transient_settings

from checks import token_shapes

_SHAPES = Path(token_shapes.__file__).resolve().as_uri()
_DETECTORS = (
    "ArtifactoryDetector",
    "AWSKeyDetector",
    "AzureStorageKeyDetector",
    "BasicAuthDetector",
    "CloudantDetector",
    "DiscordBotTokenDetector",
    "GitHubTokenDetector",
    "GitLabTokenDetector",
    "IbmCloudIamDetector",
    "JwtTokenDetector",
    "MailchimpDetector",
    "NpmDetector",
    "OpenAIDetector",
    "PrivateKeyDetector",
    "PypiTokenDetector",
    "SendGridDetector",
    "SlackDetector",
    "SquareOAuthDetector",
    "StripeDetector",
    "TelegramBotTokenDetector",
    "TwilioKeyDetector",
)
"""By shape. Those that guess, from a variable's name or by entropy, cry wolf in a code base that is
about secrets, and who hears that daily stops listening."""

_SETTINGS = {
    "plugins_used": [
        *({"name": name} for name in _DETECTORS),
        {"name": "GoogleCredentialDetector", "path": _SHAPES},
        {"name": "BrokerCredentialDetector", "path": _SHAPES},
    ],
    "filters_used": [
        {"path": "detect_secrets.filters.allowlist.is_line_allowlisted"},
        # `$PASSWORD`, `<password>`, `{password}`: a place for one, not one.
        {"path": "detect_secrets.filters.heuristic.is_templated_secret"},
        {"path": "detect_secrets.filters.heuristic.is_indirect_reference"},
    ],
}

_LONGEST_SAMPLE = 8
"""Characters."""


def find_secrets(paths: Iterable[str]) -> list[str]:
    """A line for each find: where, and what kind; never the secret itself."""
    found = SecretsCollection()
    with transient_settings(_SETTINGS):
        for path in paths:
            found.scan_file(path)
    return sorted(
        {f"{path}:{each.line_number}: {each.type}" for path, each in found if not _is_sample(each)}
    )


def _is_sample(find: PotentialSecret) -> bool:
    """`user:password@host` and the like: nobody's password for a server is that short."""
    is_in_address = find.type == BasicAuthDetector.secret_type
    return is_in_address and len(find.secret_value or "") <= _LONGEST_SAMPLE


def tracked_files() -> list[str]:
    """What a commit would publish. Raises `CalledProcessError` outside a repository."""
    listing = subprocess.run(
        ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"),  # noqa: S607
        capture_output=True,
        check=True,
    ).stdout
    paths = [path for path in listing.decode().split("\0") if path]
    # Locks are nothing but digests; they are made by `make lock`.
    return [path for path in paths if not path.startswith("requirements/") and Path(path).is_file()]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: the files named, or all that are tracked."""
    paths = list(sys.argv[1:] if arguments is None else arguments)
    finds = find_secrets(paths or tracked_files())
    for find in finds:
        sys.stdout.write(f"{find}\n")
    sys.stdout.write("Secrets found.\n" if finds else "No secrets in any file.\n")
    return 1 if finds else 0


if __name__ == "__main__":
    sys.exit(main())
