-- oldest-release: 4
-- Retention also says of how much it could not tell whether it was whole, for want of the key.
-- migrate:up
ALTER TABLE audit_checkpoints ADD COLUMN unverified bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN audit_checkpoints.unverified IS
    'how many of the deleted seals were of a key that the broker did not have';
-- migrate:down
ALTER TABLE audit_checkpoints DROP COLUMN unverified;
