"""JWTs and the keys that verify them: one stack for configured issuers and for Google."""
