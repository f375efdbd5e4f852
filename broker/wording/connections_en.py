"""Every word of the page of connections in English; a translation is one more `PageWords`.

What stands in braces is filled in: names of accounts, users and services, and numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from broker.wording.message import Message, Tone
from broker.wording.times import MomentWords


@dataclass(frozen=True, slots=True)
class StatusWords:
    """How a connection is, in a word or two, and what that means where it is not well."""

    name: str
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class ConfirmationWords:
    """The page that asks before anything is withdrawn."""

    title: str
    lead: str
    points: tuple[str, ...]
    keep: str


@dataclass(frozen=True, slots=True)
class PageWords:
    """All words of one language."""

    language: str
    """BCP 47."""
    site: str
    reference: str
    skip: str
    title: str
    whose: str
    not_you: str
    nothing_title: str
    nothing_advice: str
    withdrawn_title: str
    statuses: Mapping[str, StatusWords]
    """By the contract's name of the status."""
    from_elsewhere: str
    rights: str
    more_rights: str
    connected_since: str
    allowed_on: str
    """For what is not confirmed yet."""
    withdrawn_on: str
    last_used: str
    used_by: str
    never_used: str
    withdraw: str
    withdraw_named: str
    connect_again: str
    connect_again_named: str
    confirmation: ConfirmationWords
    unconfirmed: ConfirmationWords
    """The same page, for what only waits to become a connection."""
    done: str
    done_advice: str
    back: str
    open_again: str
    google: str
    google_link: str
    moments: MomentWords
    notices: Mapping[str, str]
    nameless_notices: Mapping[str, str]
    """For what is gone without a trace: a connection that was never confirmed."""
    messages: Mapping[str, Message]
    """By refusal."""


_GET_LINK = "Go back to where you came from and open your connections from there again."

ENGLISH = PageWords(
    language="en",
    site="Google connections",
    reference="Reference",
    skip="Skip to the content",
    title="Your Google connections",
    whose="Signed in as {user} of {service}",
    not_you="If this is not you, change nothing here and choose “{done}”.",
    nothing_title="Nothing is connected",
    nothing_advice="Once you have connected a Google account in {service}, it is shown here.",
    withdrawn_title="Recently withdrawn",
    statuses={
        "active": StatusWords("Connected"),
        "reauthorization_required": StatusWords(
            "Needs to be connected again",
            "Google no longer accepts this connection. The password may have been changed, or the "
            "access removed in the Google account.",
        ),
        "pending_confirmation": StatusWords(
            "Not confirmed yet",
            "{service} has not confirmed this connection yet. Until then nobody can use it.",
        ),
        "revoked": StatusWords("Withdrawn"),
    },
    from_elsewhere="To connect it again, go back to {service}.",
    rights="What you allowed",
    more_rights="{count} more",
    connected_since="Connected since",
    allowed_on="Allowed on",
    withdrawn_on="Withdrawn",
    last_used="Last used",
    used_by="by {service}",
    never_used="Not yet",
    withdraw="Withdraw",
    withdraw_named="Withdraw {email}",
    connect_again="Connect again",
    connect_again_named="Connect again {email}",
    confirmation=ConfirmationWords(
        title="Withdraw this connection?",
        lead="{service}, and every other service here that uses this Google account for you, will "
        "no longer be able to.",
        points=(
            "Access ends at once. Google is told, too, once nobody here needs the account.",
            "What was copied from the account before is not deleted by this.",
            "You can connect the account again whenever you like.",
        ),
        keep="Keep it",
    ),
    unconfirmed=ConfirmationWords(
        title="Withdraw this connection?",
        lead="{service} asked for it and has not confirmed it yet, so nobody can use it so far.",
        points=(
            "It can't be confirmed then. Google is told, too, once nobody here needs the account.",
            "You can connect the account again whenever you like.",
        ),
        keep="Keep it",
    ),
    done="I'm done",
    done_advice="Closes this page in your browser. After 15 minutes it closes by itself.",
    back="Back to {service}",
    open_again="Show my connections",
    google="Google lists everything that has access to your account under",
    google_link="Third-party apps and services",
    moments=MomentWords(
        just_now="just now",
        minutes=("{count} minute ago", "{count} minutes ago"),
        hours=("{count} hour ago", "{count} hours ago"),
        days=("{count} day ago", "{count} days ago"),
        date="{day} {month} {year}",
        months=(
            "January", "February", "March", "April", "May", "June", "July", "August",
            "September", "October", "November", "December",
        ),
    ),
    notices={
        "withdrawn": "{email} is no longer connected.",
        "already_withdrawn": "{email} is no longer connected. It had been withdrawn already.",
        "connected": "{email} is connected again.",
        "not_connected": "{email} was not connected again. Nothing has changed.",
        "cannot_connect": "{email} can't be connected from here. Go back to {service} to do so.",
    },
    nameless_notices={
        "withdrawn": "What was not confirmed yet is withdrawn. Nobody can use it.",
        "already_withdrawn": "That connection had been withdrawn already. Nobody can use it.",
        "cannot_connect": "That can't be connected from here. Go back to {service} to do so.",
    },
    messages={
        "link_not_ours": Message(
            "This link does not work",
            "It is incomplete or was changed on the way.",
            f"If you copied it, make sure to copy all of it. {_GET_LINK}",
        ),
        "link_expired": Message(
            "This link has expired",
            "For your safety, links like this work for a few minutes only.",
            _GET_LINK,
            Tone.CALM,
        ),
        "link_used": Message(
            "This link has been opened already",
            "For your safety, each link opens your connections once, in one browser.",
            f"If that was you, go on in that browser. {_GET_LINK}",
            Tone.CALM,
        ),
        "link_withdrawn": Message(
            "This link no longer works",
            "Whoever made it may no longer send people here.",
            _GET_LINK,
            Tone.CALM,
        ),
        "no_visit": Message(
            "We don't know this browser",
            "Your connections open by a link from the service that you use, in a browser that "
            "keeps cookies.",
            f"Allow cookies for this site. {_GET_LINK}",
            Tone.CALM,
        ),
        "visit_over": Message(
            "Your connections are closed",
            "For your safety, they stay open for 15 minutes only, and only in the browser that "
            "opened them.",
            _GET_LINK,
            Tone.CALM,
        ),
        "form_not_ours": Message(
            "That was not done",
            "What was sent did not come from your own page of connections, or from one that is no "
            "longer open. Nothing has changed.",
            "Look at your connections again, and try once more from there.",
        ),
        "malformed": Message(
            "This can't be read",
            "Something in it is too long, missing, or there twice. Nothing has changed.",
            _GET_LINK,
        ),
        "closed": Message(
            "Your connections are closed",
            "This browser can no longer see or change them.",
            "You can close this page.",
            Tone.GOOD,
        ),
    },
)  # fmt: skip
