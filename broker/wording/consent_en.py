"""The words of the consent's pages in English."""

from collections.abc import Mapping

from broker.wording.catalogue import ConsentWords, InterstitialWords, PageText

_NOTHING = "Nothing was connected."
_START_AGAIN = "Go back to where you came from and connect again."
_CONTACT = "contact the people who run this service"
_RETRY = f"Please try again. If it happens again, {_CONTACT}."
_SET_UP = PageText(
    "This service is not set up correctly at Google",
    f"{_NOTHING} This is not your mistake.",
    f"Please {_CONTACT}. After they have fixed it, go back to where you came from and connect "
    "again.",
)
_GOOGLE_TROUBLE = PageText(
    "Google has a temporary problem",
    f"{_NOTHING} Google could not complete the request.",
    "Please try again in a few minutes.",
)
_STEP_MISSING = PageText(
    "Google needs one more step from you",
    f"{_NOTHING}",
    "Please try again, and follow Google's pages to the end.",
)

_MESSAGES: Mapping[str, PageText] = {
    # The decision of the user or of an administrator.
    "access_denied": PageText(
        "You did not allow the connection",
        f"{_NOTHING} Your Google account is unchanged.",
        "If you change your mind, you can try again. If you wanted to allow it but Google stopped "
        f"you, your account may not be approved yet: {_CONTACT}.",
    ),
    "admin_policy_enforced": PageText(
        "Your organisation does not allow this connection",
        f"{_NOTHING} Your organisation's Google Workspace policy blocks it.",
        "Ask your administrator to allow this app, or try again with another Google account.",
    ),
    "org_internal": PageText(
        "This connection is only for accounts of one organisation",
        f"{_NOTHING} The account that you chose does not belong to it.",
        "Try again with your work account at the organisation that runs this service. If you "
        "already did, ask the people who run it to add your account.",
    ),
    "disallowed_useragent": PageText(
        "Google does not allow signing in from this window",
        f"{_NOTHING} This page seems to be open inside another app.",
        "Go back to where you came from, this time in your usual browser, such as Chrome, Safari, "
        "Firefox or Edge, and connect again from there.",
    ),
    "login_required": _STEP_MISSING,
    "account_selection_required": _STEP_MISSING,
    "consent_required": _STEP_MISSING,
    "interaction_required": _STEP_MISSING,
    # What only the operator can fix.
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
    # Temporary failures.
    "server_error": _GOOGLE_TROUBLE,
    "temporarily_unavailable": _GOOGLE_TROUBLE,
    "internal_failure": _GOOGLE_TROUBLE,
    "google_unavailable": PageText(
        "Google is temporarily unavailable",
        f"{_NOTHING} Google did not respond in time.",
        "Please try again in a few minutes.",
    ),
    "storage_unavailable": PageText(
        "This can't be completed right now",
        "Part of this service is temporarily unavailable. Your account might not be connected.",
        "Please try again in a few minutes.",
    ),
    "revocation_under_way": PageText(
        "Google is still removing your previous connection",
        f"{_NOTHING} A new connection would be removed along with it.",
        "Please try again in 30 seconds.",
    ),
    # Faults of Google's response.
    "invalid_grant": PageText(
        "That took too long",
        f"{_NOTHING} Google's response had expired or was already used.",
        "Please try again.",
    ),
    "id_token_refused": PageText(
        "We couldn't verify which account this is",
        f"{_NOTHING} Google's response did not pass all checks, so we discarded it.",
        _RETRY,
    ),
    "wrong_issuer": PageText(
        "This response did not come from Google",
        f"{_NOTHING} The response names another sender, so we discarded it.",
        f"{_START_AGAIN} If it happens again, {_CONTACT}.",
    ),
    "no_code": PageText("Google's response was incomplete", f"{_NOTHING}", _RETRY),
    "no_refresh_token": PageText(
        "Google did not allow a lasting connection",
        f"{_NOTHING} Without Google's lasting permission the connection would end within an hour.",
        "Remove this app in your Google account under “Third-party apps and services”, then try "
        f"again. If that does not help, {_CONTACT}.",
    ),
    "unknown_error": PageText(
        "Google could not connect your account",
        f"{_NOTHING}",
        _RETRY,
    ),
    # Links, and browsers that return.
    "link_not_ours": PageText(
        "This link does not work",
        "It is incomplete, was changed, or was made for someone else.",
        "If you copied it, make sure that you copied all of it. Otherwise, go back to where you "
        "came from and request a new link.",
    ),
    "link_expired": PageText(
        "This link has expired",
        "For your security, links like this work for a few minutes only.",
        _START_AGAIN,
    ),
    "link_used": PageText(
        "This link has already been used",
        "Each link works only once.",
        "You can close this page. To connect another account, or to change what you allowed, "
        "go back to where you came from.",
    ),
    "link_elsewhere": PageText(
        "This link was opened in another browser",
        "For your security, a link works only in the browser that opened it first.",
        "Continue in that browser, or go back to where you came from and connect again from here.",
    ),
    "link_withdrawn": PageText(
        "This link is no longer valid",
        f"The permissions of the service that created it have changed. {_NOTHING}",
        _START_AGAIN,
    ),
    "not_from_our_page": PageText(
        "We couldn't verify this request",
        f"{_NOTHING} The page that you came from may have been open for too long or in another "
        "browser, or your browser may block cookies.",
        "Allow cookies for this site, then go back to where you came from and connect again.",
    ),
    "account_mismatch": PageText(
        "This is a different Google account",
        f"{_NOTHING} This connection is for one specific account, and you chose another one.",
        "Try again and choose the requested account.",
    ),
    "address_not_verified": PageText(
        "Google has not verified this account's email address",
        f"{_NOTHING} This connection is for one specific email address, and it is not certain that "
        "it belongs to the account that you chose.",
        "Verify the address in your Google account and try again, or choose another account that "
        "has it.",
    ),
    "answer_unknown": PageText(
        "We can't tell which connection this belongs to",
        "Nothing was changed. If you just connected your account and then reloaded this page or "
        "went back, your account is still connected.",
        "Otherwise, you may have continued in another browser or tab or waited too long, or your "
        f"browser may block cookies. {_START_AGAIN}",
    ),
    "malformed": PageText(
        "We couldn't read this request",
        "Part of the address, or of what was sent, is too long, missing, or repeated.",
        _START_AGAIN,
    ),
    # By HTTP status.
    "404": PageText(
        "Page not found",
        "There is no page at this address.",
        "If you followed a link, go back to where you came from and request a new link.",
    ),
    "405": PageText(
        "This page can only be viewed",
        "Nothing can be sent to it.",
        _START_AGAIN,
    ),
    "429": PageText(
        "Too many requests",
        "Your network sent too many requests in a short time. Nothing was changed.",
        "Please wait a minute and reload this page.",
    ),
    "500": PageText(
        "Something went wrong on our side",
        "This is not your mistake, and we have recorded it.",
        f"Please try again later. If it happens again, {_CONTACT}.",
    ),
    "503": PageText(
        "This is temporarily unavailable",
        "Part of this service is temporarily unavailable. Nothing was changed.",
        "Please try again in a few minutes.",
    ),
}

ENGLISH = ConsentWords(
    language="en",
    site="Google connection",
    try_again="Try again",
    reference="Reference",
    connected_title="Your Google account is connected",
    connected_partly_title="Your Google account is connected, with fewer permissions",
    connected_lead="You can close this page.",
    account="Account",
    granted="The service can now",
    not_granted="You did not allow it to",
    not_granted_advice=(
        "Features that need this permission won't work. To allow it, go back to where you came "
        "from and connect again."
    ),
    withdraw="You can remove this access at any time in your Google account, under",
    withdraw_link="Third-party apps and services",
    interstitial=InterstitialWords(
        title="{service} asks to use your Google account",
        lead="On the next page, Google asks for your permission. Nothing is connected until you "
        "allow it there.",
        again="This page was open in two tabs. Please continue again. Nothing is connected yet.",
        asked="It would be able to",
        kept="What you allowed before stays the same",
        account="For this account",
        account_advice="No other account will be connected.",
        go_on="Continue to Google",
        next_step="You can remove this access at any time in your Google account.",
        warning="Only continue if you just came here from {service}. If someone sent you this "
        "link, close this page.",
        returns_to="Afterwards, you return to {service} ({host}).",
    ),
    messages=_MESSAGES,
)
