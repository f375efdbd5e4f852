"""The words of the connections page in English."""

from broker.wording.catalogue import (
    ConfirmationWords,
    ConnectionsWords,
    PageText,
    StatusWords,
)
from broker.wording.times import TimeWords

_GET_LINK = "Go back to where you came from and open your connections from there again."
_AT_GOOGLE = (
    "If no other connection here uses this account, we also remove this app's access at Google."
)

ENGLISH = ConnectionsWords(
    language="en",
    site="Google connections",
    reference="Reference",
    skip="Skip to the content",
    title="Your Google connections",
    whose="Signed in to {service} as {user}",
    not_you="If this is not you, change nothing here and choose “{done}”.",
    nothing_title="Nothing is connected",
    nothing_advice="Google accounts that you connect in {service} are shown here.",
    withdrawn_title="Recently removed",
    statuses={
        "active": StatusWords("Connected"),
        "reauthorization_required": StatusWords(
            "Needs to be reconnected",
            "Google no longer accepts this connection. The password may have been changed, or the "
            "access removed in the Google account.",
        ),
        "pending_confirmation": StatusWords(
            "Not confirmed yet",
            "{service} has not confirmed this connection yet. Until then, no service can use it.",
        ),
        "revoked": StatusWords("Removed"),
    },
    from_elsewhere="To reconnect it, go back to {service}.",
    rights="What you allowed",
    more_rights="{count} more",
    connected_since="Connected since",
    allowed_on="Allowed on",
    withdrawn_on="Removed",
    last_used="Last used",
    used_by="by {service}",
    never_used="Never",
    withdraw="Remove access",
    withdraw_named="Remove access for {email}",
    connect_again="Reconnect",
    connect_again_named="Reconnect {email}",
    confirmation=ConfirmationWords(
        title="Remove access to this account?",
        lead="{service}, and every other service here that uses this Google account for you, will "
        "lose access to it.",
        points=(
            f"Access ends immediately. {_AT_GOOGLE}",
            "Data that was already copied from the account is not deleted.",
            "You can reconnect the account at any time.",
        ),
        keep="Keep it",
    ),
    unconfirmed=ConfirmationWords(
        title="Remove this unconfirmed connection?",
        lead="{service} asked for it and has not confirmed it yet, so no service can use it.",
        points=(
            f"It can't be confirmed after that. {_AT_GOOGLE}",
            "You can reconnect the account at any time.",
        ),
        keep="Keep it",
    ),
    done="Close",
    done_advice="Signs you out of this page. After 15 minutes you are signed out automatically, "
    "but this page stays on the screen until you close it.",
    back="Back to {service}",
    open_again="Show my connections",
    google="Google lists all apps that have access to your account under",
    google_link="Third-party apps and services",
    times=TimeWords(
        under_a_minute="less than a minute ago",
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
        "already_withdrawn": "{email} is not connected. Access was already removed.",
        "connected": "{email} has been reconnected.",
        "not_connected": "{email} was not reconnected. Nothing has changed.",
        "cannot_connect": "You can't connect {email} from here. Go back to {service} to do so.",
    },
    nameless_notices={
        "withdrawn": "The unconfirmed connection was removed. No service can use it.",
        "already_withdrawn": "That connection was already removed. No service can use it.",
        "cannot_connect": "You can't connect this account from here. Go back to {service} to do "
        "so.",
    },
    messages={
        "link_not_ours": PageText(
            "This link does not work",
            "It is incomplete or was changed.",
            f"If you copied it, make sure that you copied all of it. {_GET_LINK}",
        ),
        "link_expired": PageText(
            "This link has expired",
            "For your security, links like this work for a few minutes only.",
            _GET_LINK,
        ),
        "link_used": PageText(
            "This link has already been opened",
            "For your security, each link opens your connections once, in one browser.",
            f"If that was you, continue in that browser. {_GET_LINK}",
        ),
        "link_withdrawn": PageText(
            "This link no longer works",
            "The permissions of the service that created it have changed.",
            _GET_LINK,
        ),
        "no_visit": PageText(
            "You are not signed in",
            "Your connections open with a link from the service that you use, in a browser that "
            "allows cookies.",
            f"Allow cookies for this site. {_GET_LINK}",
        ),
        "visit_over": PageText(
            "You have been signed out",
            "For your security, your connections stay open for 15 minutes, and only in the browser "
            "that opened them.",
            _GET_LINK,
        ),
        "form_not_ours": PageText(
            "We couldn't verify this request",
            "It did not come from your own connections page, or from one that is no longer open. "
            "Nothing has changed.",
            "Open your connections again, and retry from there.",
        ),
        "malformed": PageText(
            "We couldn't read this request",
            "Part of it is too long, missing, or repeated. Nothing has changed.",
            _GET_LINK,
        ),
        "closed": PageText(
            "You are signed out",
            "This browser can no longer see or change your connections.",
            "You can close this page.",
        ),
    },
)  # fmt: skip
