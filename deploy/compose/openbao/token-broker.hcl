# The brokers: they read the OAuth client, and nothing else.
path "secret/data/token-broker/google" {
  capabilities = ["read"]
}
