-- name: head
-- The newest seal, kept from all other replicas until the transaction ends; and whether the seal
-- ($1, $2) is still in the chain.
SELECT number, mac, holds_own FROM audit_head($1, $2)

-- name: add_seal
-- The next in the chain.
INSERT INTO audit_seals
    (number, batch, records, first_at, last_at, digest, previous_mac, key_id, mac)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: digest_of
-- The digest of a batch that is sealed already.
SELECT digest FROM audit_seals WHERE batch = $1
