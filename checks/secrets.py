"""Searches every tracked file for secrets, by shape; exits with 1 if there is one.

Text that only resembles a secret, such as a made-up password in a test, is marked on its line with
the comment `pragma: allowlist secret`. Nothing else is skipped: no kind of file and no line.
"""

import codecs
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from detect_secrets.core.potential_secret import PotentialSecret
from detect_secrets.filters.allowlist import is_line_allowlisted
from detect_secrets.filters.heuristic import is_templated_secret
from detect_secrets.plugins.basic_auth import BasicAuthDetector
from detect_secrets.settings import get_plugins, transient_settings
from detect_secrets.util.code_snippet import get_code_snippet

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
"""Detectors by shape. Those that guess from a variable's name or by entropy raise false alarms in a
code base about secrets, and daily false alarms are ignored."""

_SETTINGS = {
    "plugins_used": [
        *({"name": name} for name in _DETECTORS),
        *({"name": detector.__name__, "path": _SHAPES} for detector in token_shapes.DETECTORS),
    ],
}

_BYTE_ORDER_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}

_LONGEST_SAMPLE = 8
"""Characters."""


def find_secrets(paths: Iterable[str]) -> list[str]:
    """Return a line for each find: place and kind, never the secret itself."""
    found: set[str] = set()
    with transient_settings(_SETTINGS):
        for path in paths:
            found.update(f"{path}:{each.line_number}: {each.type}" for each in _finds_in(path))
    return sorted(found)


def _finds_in(path: str) -> Iterator[PotentialSecret]:
    """Search line by line: detect-secrets' own scan of a file skips some kinds of files, text that
    is not UTF-8, and every line with a call.
    """
    lines = _text_of(path).splitlines()
    for number, line in enumerate(lines, start=1):
        finds = [
            each for plugin in get_plugins() for each in plugin.analyze_line(path, line, number)
        ]
        if finds and not is_line_allowlisted(path, line, get_code_snippet(lines, number)):
            yield from (each for each in finds if not _is_sample(each))


def _text_of(path: str) -> str:
    """Decode any file: a secret is ASCII, and is visible in any other encoding too."""
    content = Path(path).read_bytes()
    return content.decode(_BYTE_ORDER_MARKS.get(content[:2], "utf-8"), "replace")


def _is_sample(find: PotentialSecret) -> bool:
    """Return True for a placeholder (`<password>`, `{password}`), or a password in a URL that is
    too short to be real.
    """
    value = find.secret_value or ""
    is_in_address = find.type == BasicAuthDetector.secret_type
    return is_templated_secret(value) or (is_in_address and len(value) <= _LONGEST_SAMPLE)


def tracked_files() -> list[str]:
    """Return the files that a commit would publish.

    Raises `CalledProcessError` outside a repository.
    """
    listing = subprocess.run(
        ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"),  # noqa: S607
        capture_output=True,
        check=True,
    ).stdout
    return [path for path in listing.decode().split("\0") if path and Path(path).is_file()]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: search the named files, or all that are tracked."""
    paths = list(sys.argv[1:] if arguments is None else arguments)
    finds = find_secrets(paths or tracked_files())
    for find in finds:
        sys.stdout.write(f"{find}\n")
    sys.stdout.write("Secrets found.\n" if finds else "No secrets in any file.\n")
    return 1 if finds else 0


if __name__ == "__main__":
    sys.exit(main())
