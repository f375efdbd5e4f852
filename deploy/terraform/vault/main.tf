locals {
  policies = concat(vault_policy.read_client[*].name, vault_policy.use_transit_key[*].name)
}

resource "vault_mount" "kv" {
  count = var.create_kv_mount ? 1 : 0

  path        = var.kv_mount
  type        = "kv"
  options     = { version = "2" }
  description = "Google's OAuth client of the token broker"
}

resource "vault_kv_secret_v2" "client" {
  mount                = var.create_kv_mount ? vault_mount.kv[0].path : var.kv_mount
  name                 = var.kv_path
  data_json_wo         = jsonencode(var.client)
  data_json_wo_version = var.client_version
}

resource "vault_policy" "read_client" {
  name = "${var.name}-client"
  policy = templatefile("${path.module}/policies/read-client.hcl.tftpl", {
    kv_mount = var.kv_mount
    kv_path  = var.kv_path
  })
}

resource "vault_mount" "transit" {
  count = try(var.transit.create_mount, false) ? 1 : 0

  path        = var.transit.mount
  type        = "transit"
  description = "Key encryption of the token broker"
}

resource "vault_transit_secret_backend_key" "broker" {
  count = var.transit == null ? 0 : 1

  backend          = var.transit.create_mount ? vault_mount.transit[0].path : var.transit.mount
  name             = var.transit.key
  type             = "aes256-gcm96"
  exportable       = false
  deletion_allowed = false

  lifecycle {
    # Without this key every grant is lost.
    prevent_destroy = true
  }
}

resource "vault_policy" "use_transit_key" {
  count = var.transit == null ? 0 : 1

  name = "${var.name}-transit"
  policy = templatefile("${path.module}/policies/use-transit-key.hcl.tftpl", {
    transit_mount = var.transit.mount
    transit_key   = var.transit.key
  })
}

resource "vault_kubernetes_auth_backend_role" "broker" {
  count = var.kubernetes == null ? 0 : 1

  backend                          = "kubernetes" # where the broker logs in
  role_name                        = var.name
  bound_service_account_names      = [var.kubernetes.service_account]
  bound_service_account_namespaces = [var.kubernetes.namespace]
  audience                         = var.kubernetes.audience
  token_policies                   = local.policies
  token_ttl                        = var.token_ttl_seconds
  token_max_ttl                    = var.token_max_ttl_seconds
}

resource "vault_approle_auth_backend_role" "broker" {
  count = var.approle == null ? 0 : 1

  backend               = "approle" # where the broker logs in
  role_name             = var.name
  bind_secret_id        = true
  secret_id_bound_cidrs = var.approle.secret_id_bound_cidrs
  secret_id_ttl         = var.approle.secret_id_ttl_seconds
  token_policies        = local.policies
  token_ttl             = var.token_ttl_seconds
  token_max_ttl         = var.token_max_ttl_seconds
}
