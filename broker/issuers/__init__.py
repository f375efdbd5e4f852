"""The OpenID Connect issuers whose JWTs are believed: their keys, and what a JWT must be."""
