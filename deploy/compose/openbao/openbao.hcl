# One node with its storage on a volume. It starts sealed: docs/how-to/deploy-compose.md#unseal-openbao
storage "raft" {
  path    = "/openbao/file"
  node_id = "openbao"
}

listener "tcp" {
  address       = "0.0.0.0:8200"
  tls_cert_file = "/run/secrets/openbao_cert"
  tls_key_file  = "/run/secrets/openbao_key"
}

api_addr     = "https://openbao:8200"
cluster_addr = "https://openbao:8201"
