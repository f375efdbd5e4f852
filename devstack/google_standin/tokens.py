"""Codes and tokens: issued, expired and revoked by Google's rules.

Knows nothing of HTTP. Callers hold the state's lock.
"""

import secrets
from collections.abc import Iterable

from devstack.google_standin import scopes as scope_names
from devstack.google_standin.context import StandinContext
from devstack.google_standin.model import (
    AccessToken,
    Account,
    Client,
    Code,
    RefreshToken,
)
from devstack.google_standin.security_events import EventOrder, announce

CODE_LIFETIME_SECONDS = 600


def issue_code(
    context: StandinContext,
    *,
    client: Client,
    account: Account,
    granted: Iterable[str],
    redirect_uri: str,
    parameters: dict[str, str],
) -> Code:
    """Record the consent, and return its code.

    With `include_granted_scopes` the code has all scopes that the account has granted to the
    project, not only those of this request.
    """
    authorization = context.state.authorization(client.project, account.sub)
    asked = scope_names.as_google_names(granted)
    authorization.scopes = list(dict.fromkeys([*authorization.scopes, *asked]))
    combined = parameters.get("include_granted_scopes") == "true"
    code = Code(
        value="4/0A" + secrets.token_urlsafe(48),
        client_id=client.client_id,
        sub=account.sub,
        redirect_uri=redirect_uri,
        scopes=list(authorization.scopes) if combined else asked,
        nonce=parameters.get("nonce"),
        code_challenge=parameters.get("code_challenge"),
        code_challenge_method=parameters.get("code_challenge_method", "plain"),
        offline=parameters.get("access_type") == "offline",
        consent_prompted="consent" in parameters.get("prompt", "").split(),
        expires_at=context.clock.epoch() + CODE_LIFETIME_SECONDS,
    )
    context.state.codes[code.value] = code
    context.issued.codes.append(code.value)
    return code


def issue_access_token(
    context: StandinContext, *, client: Client, sub: str, scopes: list[str], offline: bool
) -> AccessToken:
    now = context.clock.epoch()
    token = AccessToken(
        value="ya29.a0A" + secrets.token_urlsafe(150),
        client_id=client.client_id,
        project=client.project,
        sub=sub,
        scopes=scopes,
        expires_at=now + context.behaviour.token_lifetime,
        offline=offline,
    )
    _forget_expired(context, now)
    context.state.access_tokens[token.value] = token
    context.issued.access_tokens.append(token.value)
    return token


def issue_refresh_token(
    context: StandinContext, *, client: Client, sub: str, scopes: list[str]
) -> RefreshToken:
    """Issue a refresh token; over the cap, the oldest of account and client is revoked."""
    token = RefreshToken(
        value="1//0" + secrets.token_urlsafe(72),
        client_id=client.client_id,
        project=client.project,
        sub=sub,
        scopes=scopes,
    )
    tokens = context.state.refresh_tokens
    tokens[token.value] = token
    context.issued.refresh_tokens.append(token.value)
    mine = [t.value for t in tokens.values() if (t.sub, t.client_id) == (sub, client.client_id)]
    for oldest in mine[: -context.behaviour.refresh_token_cap]:
        del tokens[oldest]
    return token


def refresh_token_for(context: StandinContext, client: Client, code: Code) -> RefreshToken | None:
    """Issue the refresh token of a code exchange: if offline, and the first or prompted."""
    authorization = context.state.authorization(client.project, code.sub)
    if not code.offline or (authorization.refresh_token_sent and not code.consent_prompted):
        return None
    authorization.refresh_token_sent = True
    return issue_refresh_token(context, client=client, sub=code.sub, scopes=code.scopes)


def live_access_token(context: StandinContext, value: str) -> AccessToken | None:
    token = context.state.access_tokens.get(value)
    if token is None or token.expires_at <= context.clock.epoch():
        return None
    return token


def revoke_token(context: StandinContext, value: str) -> bool:
    """Revoke the whole authorization of a token; return False if the token is unknown."""
    token = context.state.refresh_tokens.get(value) or live_access_token(context, value)
    if token is None:
        return False
    revoke_authorization(context, project=token.project, sub=token.sub)
    return True


def revoke_authorization(context: StandinContext, *, sub: str, project: str | None = None) -> None:
    """Revoke all tokens and scopes of one project, or of every project, as the account page does.

    Sends a security event, if a stream is registered.
    """
    state = context.state

    def is_revoked(record: RefreshToken | AccessToken) -> bool:
        return record.sub == sub and project in (None, record.project)

    state.refresh_tokens = {v: t for v, t in state.refresh_tokens.items() if not is_revoked(t)}
    state.access_tokens = {v: t for v, t in state.access_tokens.items() if not is_revoked(t)}
    for key in list(state.authorizations):
        if key[1] == sub and project in (None, key[0]):
            del state.authorizations[key]
            announce(context, EventOrder("tokens-revoked", account=sub))


def kill_refresh_tokens(context: StandinContext, *, sub: str, only_mail: bool = False) -> int:
    """Revoke refresh tokens, but no access token, as disuse, an admin or a new password does."""
    dead = [
        token.value
        for token in context.state.refresh_tokens.values()
        if token.sub == sub and (not only_mail or scope_names.touches_mail(token.scopes))
    ]
    for value in dead:
        del context.state.refresh_tokens[value]
    return len(dead)


def expire_access_tokens(context: StandinContext, *, sub: str | None = None) -> int:
    """Make access tokens expire now, before their time."""
    gone = [t.value for t in context.state.access_tokens.values() if sub in (None, t.sub)]
    for value in gone:
        del context.state.access_tokens[value]
    return len(gone)


def _forget_expired(context: StandinContext, now: float) -> None:
    tokens = context.state.access_tokens
    if len(tokens) < 500:
        return
    context.state.access_tokens = {v: t for v, t in tokens.items() if t.expires_at > now}
