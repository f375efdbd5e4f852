# The operator: rotates the OAuth client's secret and the brokers' login, and makes backups.
path "secret/data/token-broker/google" {
  capabilities = ["create", "read", "update"]
}

path "secret/metadata/token-broker/google" {
  capabilities = ["read"]
}

path "auth/approle/role/token-broker/role-id" {
  capabilities = ["read"]
}

path "auth/approle/role/token-broker/secret-id" {
  capabilities = ["update"]
}

path "sys/storage/raft/snapshot" {
  capabilities = ["read"]
}

path "auth/userpass/users/operator/password" {
  capabilities = ["update"]
}
