"""The callers' API of grants: list and revoke."""
