"""The audit trail: who got whose token, when, with which scopes, and every refusal."""
