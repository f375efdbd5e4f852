"""The OAuth token broker: Google's consent, the sealed grants, and tokens for internal services."""

__version__ = "0.2.0"
