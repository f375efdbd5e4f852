"""The callers' API of grants: list and revoke; and the revocations that are sent to Google."""
