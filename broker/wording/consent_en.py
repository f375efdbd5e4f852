"""Every word of the consent's pages in English; a translation is one more `Catalogue`.

Nothing that came in a request is ever part of these texts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from broker.wording.message import Message, Tone


@dataclass(frozen=True, slots=True)
class LeavingWords:
    """The page before Google. `{service}` is the name of who asks."""

    title: str
    lead: str
    again: str
    """The lead where the page is shown once more."""
    asked: str
    kept: str
    account: str
    account_advice: str
    go_on: str
    next_step: str
    warning: str
    returns_to: str
    """`{host}` is where the browser comes to in the end."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All words of one language."""

    language: str
    """BCP 47."""
    site: str
    try_again: str
    reference: str
    connected_title: str
    connected_partly_title: str
    connected_lead: str
    account: str
    granted: str
    not_granted: str
    not_granted_advice: str
    withdraw: str
    withdraw_link: str
    leaving: LeavingWords
    messages: Mapping[str, Message]
    """By reason, refusal or HTTP status."""

    def message(self, key: str) -> Message:
        """The words for a reason; those of `unknown_error` for one without its own."""
        return self.messages.get(key, self.messages["unknown_error"])


_NOTHING = "Nothing was connected."
_START_AGAIN = "Go back to where you came from and connect again."
_SET_UP = Message(
    "This service is not set up correctly at Google",
    f"{_NOTHING} This is not your mistake.",
    "Please tell the people who run this service. Nothing is lost: once they have mended it, you "
    "can go back to where you came from and connect again.",
    can_retry=False,
)
_GOOGLE_TROUBLE = Message(
    "Google has a problem just now",
    f"{_NOTHING} Google could not finish this.",
    "Please try again in a few minutes.",
)
_STEP_MISSING = Message(
    "Google needs one more step from you",
    f"{_NOTHING}",
    "Please try again, and follow Google's pages to the end.",
    Tone.CALM,
)

_ENGLISH_MESSAGES = {
    # What the user, or an administrator, said.
    "access_denied": Message(
        "You did not allow the connection",
        f"{_NOTHING} Your Google account is as it was.",
        "If you change your mind, you can try again. If you did want to allow it and Google "
        "stopped you, your account may not be admitted yet: ask the people who run this service.",
        Tone.CALM,
    ),
    "admin_policy_enforced": Message(
        "Your organisation does not allow this connection",
        f"{_NOTHING} A rule of your organisation's Google Workspace stands in the way.",
        "Ask your administrator to allow this app, or try again with another Google account.",
    ),
    "org_internal": Message(
        "This connection is only for accounts of one organisation",
        f"{_NOTHING} The account that you chose is not part of it.",
        "Try again with your work account of the organisation that runs this service. If you did, "
        "ask the people who run it to admit your account.",
    ),
    "disallowed_useragent": Message(
        "Google does not allow signing in from this window",
        f"{_NOTHING} This page seems to be open inside another app.",
        "Go back to where you came from, this time in your usual browser, such as Chrome, Safari, "
        "Firefox or Edge, and connect again from there.",
        can_retry=False,
    ),
    "login_required": _STEP_MISSING,
    "account_selection_required": _STEP_MISSING,
    "consent_required": _STEP_MISSING,
    "interaction_required": _STEP_MISSING,
    # What only the operator can mend.
    "invalid_client": _SET_UP,
    "deleted_client": _SET_UP,
    "disabled_client": _SET_UP,
    "unauthorized_client": _SET_UP,
    "redirect_uri_mismatch": _SET_UP,
    "invalid_request": _SET_UP,
    "invalid_scope": _SET_UP,
    "unsupported_response_type": _SET_UP,
    "client_refused": _SET_UP,
    "request_refused": _SET_UP,
    # What passes.
    "server_error": _GOOGLE_TROUBLE,
    "temporarily_unavailable": _GOOGLE_TROUBLE,
    "internal_failure": _GOOGLE_TROUBLE,
    "google_unavailable": Message(
        "Google can't be reached just now",
        f"{_NOTHING} Google did not answer in time.",
        "Please try again in a few minutes.",
    ),
    "storage_unavailable": Message(
        "This can't be finished just now",
        "A part of this service is out of reach. Your account may not be connected.",
        "Please try again in a few minutes.",
    ),
    "revocation_under_way": Message(
        "Your last withdrawal is still on its way to Google",
        f"{_NOTHING} Connecting now would be undone by it.",
        "Please try again in half a minute.",
        Tone.CALM,
    ),
    # What Google's answer lacked, or had too much of.
    "invalid_grant": Message(
        "That took too long",
        f"{_NOTHING} Google's answer had expired or was used already.",
        "Please try again.",
        Tone.CALM,
    ),
    "id_token_refused": Message(
        "We could not make sure which account this is",
        f"{_NOTHING} Google's answer did not pass all checks, so it was thrown away.",
        "Please try again. If it happens twice, tell the people who run this service.",
    ),
    "wrong_issuer": Message(
        "This answer did not come from Google",
        f"{_NOTHING} The answer names another sender, so it was thrown away.",
        f"{_START_AGAIN} If it happens twice, tell the people who run this service.",
        can_retry=False,
    ),
    "no_code": Message(
        "Google's answer was incomplete",
        f"{_NOTHING}",
        "Please try again. If it happens twice, tell the people who run this service.",
    ),
    "no_refresh_token": Message(
        "Google did not allow a lasting connection",
        f"{_NOTHING} Without Google's lasting permission the connection would end within an hour.",
        "Remove this app in your Google account under “Third-party apps and services”, then try "
        "again. If that does not help, tell the people who run this service.",
    ),
    "unknown_error": Message(
        "Google could not finish connecting your account",
        f"{_NOTHING}",
        "Please try again. If it happens twice, tell the people who run this service.",
    ),
    # What is wrong with a link, or with a browser that comes back.
    "link_not_ours": Message(
        "This link does not work",
        "It is incomplete, was changed on the way, or was made for somebody else.",
        "If you copied it, make sure to copy all of it. Otherwise go back to where you came from "
        "and ask for a new one.",
    ),
    "link_expired": Message(
        "This link has expired",
        "For your safety, links like this work for a few minutes only.",
        _START_AGAIN,
        Tone.CALM,
    ),
    "link_used": Message(
        "This link has been used already",
        "Each link works once, and this one has done its work.",
        "You can close this page. To connect another account, or to change what you allowed, "
        "go back to where you came from.",
        Tone.CALM,
    ),
    "link_elsewhere": Message(
        "This link was opened in another browser",
        "For your safety, only the browser that opened a link first can go on with it.",
        "Continue in that browser, or go back to where you came from and connect again from here.",
    ),
    "link_withdrawn": Message(
        "This link is no longer valid",
        "The service that made it may not use it any more. Nothing was connected.",
        _START_AGAIN,
        can_retry=False,
    ),
    "not_from_our_page": Message(
        "We can't be sure that it was you who went on",
        "Nothing was connected. The page that you came from may have been open for too long, or in "
        "another browser, or your browser does not keep cookies.",
        "Allow cookies for this site, then go back to where you came from and connect again.",
    ),
    "account_mismatch": Message(
        "This was another Google account",
        f"{_NOTHING} This connection is for one particular account, and you chose a different one.",
        "Try again, and choose the account that you are asked for.",
        Tone.CALM,
    ),
    "address_not_verified": Message(
        "Google has not verified this account's address",
        f"{_NOTHING} This connection is for one particular email address, and it is not sure that "
        "it belongs to the account that you chose.",
        "Verify the address in your Google account and try again, or choose another account that "
        "has it.",
        Tone.CALM,
    ),
    "answer_unknown": Message(
        "We can't tell which connection this belongs to",
        "Nothing was changed. If you have just connected your account, and loaded this page again "
        "or went back, all is well.",
        "Otherwise you may have gone on in another browser or tab, or waited too long, or your "
        "browser does not keep cookies. Go back to where you came from and connect again.",
        Tone.CALM,
    ),
    "malformed": Message(
        "This can't be read",
        "Something in the address, or in what was sent, is too long, missing, or there twice.",
        _START_AGAIN,
    ),
    # HTTP.
    "404": Message(
        "There is nothing here",
        "This address leads nowhere.",
        "If you followed a link, go back to where you came from and ask for a new one.",
        Tone.CALM,
    ),
    "405": Message(
        "This page can only be opened",
        "Nothing can be sent to it.",
        _START_AGAIN,
        Tone.CALM,
    ),
    "429": Message(
        "One moment, please",
        "Too many requests came from your network just now. Nothing was changed.",
        "Please wait a minute and load this page again.",
        Tone.CALM,
    ),
    "500": Message(
        "Something went wrong on our side",
        "This is not your mistake, and it has been noted.",
        "Please try again in a while. If it happens twice, tell the people who run this service.",
    ),
    "503": Message(
        "This can't be done just now",
        "A part of this service is out of reach for the moment. Nothing was changed.",
        "Please try again in a few minutes.",
    ),
}

ENGLISH = Catalogue(
    language="en",
    site="Google connection",
    try_again="Try again",
    reference="Reference",
    connected_title="Your Google account is connected",
    connected_partly_title="Your Google account is connected, with fewer permissions",
    connected_lead="You can close this page.",
    account="Account",
    granted="The service may now",
    not_granted="You did not allow it to",
    not_granted_advice=(
        "What needs this will not work. To allow it after all, go back to where you came from and "
        "connect again."
    ),
    withdraw="You can withdraw this at any time in your Google account, under",
    withdraw_link="Third-party apps and services",
    leaving=LeavingWords(
        title="{service} asks to use your Google account",
        lead="Google asks you next. Nothing is connected before you have allowed it there.",
        again="This page was open in two tabs. Please continue again. Nothing is connected yet.",
        asked="It would be able to",
        kept="What you allowed before stays as it is",
        account="For this account",
        account_advice="No other account will be connected.",
        go_on="Continue to Google",
        next_step="You can withdraw this at any time in your Google account.",
        warning="Only continue if you came here from {service} just now. If somebody sent you this "
        "link, close this page.",
        returns_to="Afterwards you return to {host}.",
    ),
    messages=_ENGLISH_MESSAGES,
)
