"""Who may have which token: approving, issuing, narrowing and revoking, by Google's rules.

It knows nothing of HTTP. Callers hold the state's lock.
"""

import secrets
from collections.abc import Iterable

from devstack.google_standin import scopes as scope_names
from devstack.google_standin.model import (
    AccessToken,
    Account,
    Client,
    Code,
    RefreshToken,
)
from devstack.google_standin.security_events import EventOrder, announce
from devstack.google_standin.world import World

CODE_LIFETIME_SECONDS = 600


def issue_code(
    world: World,
    *,
    client: Client,
    account: Account,
    granted: Iterable[str],
    redirect_uri: str,
    parameters: dict[str, str],
) -> Code:
    """Record the consent, and give the code that proves it.

    With `include_granted_scopes` the code stands for all that the account has granted to the
    project, not for this request alone.
    """
    authorization = world.state.authorization(client.project, account.sub)
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
        expires_at=world.clock.epoch() + CODE_LIFETIME_SECONDS,
    )
    world.state.codes[code.value] = code
    world.issued.codes.append(code.value)
    return code


def issue_access_token(
    world: World, *, client: Client, sub: str, scopes: list[str], offline: bool
) -> AccessToken:
    now = world.clock.epoch()
    token = AccessToken(
        value="ya29.a0A" + secrets.token_urlsafe(150),
        client_id=client.client_id,
        project=client.project,
        sub=sub,
        scopes=scopes,
        expires_at=now + world.manners.token_lifetime,
        offline=offline,
    )
    _forget_expired(world, now)
    world.state.access_tokens[token.value] = token
    world.issued.access_tokens.append(token.value)
    return token


def issue_refresh_token(
    world: World, *, client: Client, sub: str, scopes: list[str]
) -> RefreshToken:
    """A refresh token; beyond the cap, the oldest of this account and client goes silently."""
    token = RefreshToken(
        value="1//0" + secrets.token_urlsafe(72),
        client_id=client.client_id,
        project=client.project,
        sub=sub,
        scopes=scopes,
    )
    tokens = world.state.refresh_tokens
    tokens[token.value] = token
    world.issued.refresh_tokens.append(token.value)
    mine = [t.value for t in tokens.values() if (t.sub, t.client_id) == (sub, client.client_id)]
    for oldest in mine[: -world.manners.refresh_token_cap]:
        del tokens[oldest]
    return token


def refresh_token_for(world: World, client: Client, code: Code) -> RefreshToken | None:
    """The one due at this exchange, if any: offline, and the first time or consent prompted."""
    authorization = world.state.authorization(client.project, code.sub)
    if not code.offline or (authorization.refresh_token_sent and not code.consent_prompted):
        return None
    authorization.refresh_token_sent = True
    return issue_refresh_token(world, client=client, sub=code.sub, scopes=code.scopes)


def live_access_token(world: World, value: str) -> AccessToken | None:
    token = world.state.access_tokens.get(value)
    if token is None or token.expires_at <= world.clock.epoch():
        return None
    return token


def revoke_token(world: World, value: str) -> bool:
    """End the whole combined authorization behind a token; False if there is none behind it."""
    token = world.state.refresh_tokens.get(value) or live_access_token(world, value)
    if token is None:
        return False
    revoke_authorization(world, project=token.project, sub=token.sub)
    return True


def revoke_authorization(world: World, *, sub: str, project: str | None = None) -> None:
    """What the account page does: all tokens and scopes of one project, or of every project.

    A stream of security events is told.
    """
    state = world.state

    def goes(record: RefreshToken | AccessToken) -> bool:
        return record.sub == sub and project in (None, record.project)

    state.refresh_tokens = {v: t for v, t in state.refresh_tokens.items() if not goes(t)}
    state.access_tokens = {v: t for v, t in state.access_tokens.items() if not goes(t)}
    for key in list(state.authorizations):
        if key[1] == sub and project in (None, key[0]):
            del state.authorizations[key]
            announce(world, EventOrder("tokens-revoked", account=sub))


def kill_refresh_tokens(world: World, *, sub: str, only_mail: bool = False) -> int:
    """Refresh tokens die, access tokens live on: disuse, an admin, or a password change."""
    dead = [
        token.value
        for token in world.state.refresh_tokens.values()
        if token.sub == sub and (not only_mail or scope_names.touches_mail(token.scopes))
    ]
    for value in dead:
        del world.state.refresh_tokens[value]
    return len(dead)


def expire_access_tokens(world: World, *, sub: str | None = None) -> int:
    """Make access tokens expire now, whatever they were promised."""
    gone = [t.value for t in world.state.access_tokens.values() if sub in (None, t.sub)]
    for value in gone:
        del world.state.access_tokens[value]
    return len(gone)


def _forget_expired(world: World, now: float) -> None:
    tokens = world.state.access_tokens
    if len(tokens) < 500:
        return
    world.state.access_tokens = {v: t for v, t in tokens.items() if t.expires_at > now}
