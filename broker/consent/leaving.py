"""The page before Google: who asks for what, for the person to go on with or to leave alone."""

from urllib.parse import urlsplit

from starlette.responses import Response

from broker.consent.outcomes import Leaving
from broker.consent.pages import Pages
from broker.consent.visitors import VARY
from broker.wording.message import Tone
from broker.wording.scopes_en import rights_in_words

PROOF_FIELD = "proof"


def leaving_page(pages: Pages, leaving: Leaving) -> Response:
    """The page; its button sends the form that the browser goes to Google with."""
    language = pages.words.language
    return pages.frame.page(
        "leaving.html",
        403 if leaving.is_again else 200,
        words=pages.words,
        # A product's popup window needs its opener still, when the trip ends.
        headers={"Cross-Origin-Opener-Policy": "unsafe-none", "Vary": VARY},
        form_targets=_form_targets(leaving),
        tone=Tone.CALM,
        is_again=leaving.is_again,
        asked_by=leaving.asked_by,
        asked=rights_in_words(leaving.scopes, language),
        kept=rights_in_words(leaving.kept, language),
        account=leaving.account,
        returns_to=urlsplit(leaving.return_to).hostname if leaving.return_to else None,
        proof_field=PROOF_FIELD,
        proof=leaving.proof,
    )


def _form_targets(leaving: Leaving) -> tuple[str, ...]:
    """Where the form may lead, as Chromium takes it: through every redirect up to the next page.

    Google may hand the browser on to the sign-in of the person's own organisation, whose address
    nobody knows here; or straight back, and so to `return_to`. So https is open. Without encryption
    only the two known addresses are, which are on loopback then.
    """
    known = (leaving.google, leaving.return_to or "")
    plain = [f"http://{urlsplit(url).netloc}" for url in known if url.startswith("http:")]
    return ("https:", *dict.fromkeys(plain))
