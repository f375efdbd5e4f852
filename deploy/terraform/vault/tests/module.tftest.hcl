# `terraform test`, with a mocked provider.

mock_provider "vault" {}

variables {
  client = {
    client_id     = "1234-abc.apps.googleusercontent.com"
    client_secret = "made-up"
  }
}

run "by_default_there_is_the_secret_and_a_policy_to_read_it" {
  assert {
    condition     = vault_mount.kv[0].options == tomap({ version = "2" })
    error_message = "The engine must be KV v2."
  }
  assert {
    condition     = strcontains(vault_policy.read_client.policy, "path \"secret/data/token-broker/google\"")
    error_message = "The policy must name the secret."
  }
  assert {
    condition     = output.policies == ["token-broker-client"]
    error_message = "No other policy is needed."
  }
  assert {
    condition     = output.kubernetes_role == null && output.approle_role_id == null
    error_message = "There must be no login unasked."
  }
}

run "a_mount_that_is_there_is_left_alone" {
  variables {
    create_kv_mount = false
    kv_mount        = "kv/prod"
  }

  assert {
    condition     = length(vault_mount.kv) == 0 && vault_kv_secret_v2.client.mount == "kv/prod"
    error_message = "The secret must go into the mount that is named."
  }
}

run "kubernetes_login_is_for_one_account_and_one_audience" {
  variables {
    kubernetes = { namespace = "broker", service_account = "token-broker", audience = "vault.example.com" }
  }

  assert {
    condition = (
      one(vault_kubernetes_auth_backend_role.broker[*].audience) == "vault.example.com"
      && one(vault_kubernetes_auth_backend_role.broker[*].bound_service_account_names) == toset(["token-broker"])
      && one(vault_kubernetes_auth_backend_role.broker[*].bound_service_account_namespaces) == toset(["broker"])
    )
    error_message = "The role must name the account, its namespace and the audience."
  }
}

run "approle_logs_in_with_the_policies_of_both_engines" {
  variables {
    approle = { secret_id_bound_cidrs = ["10.0.0.0/8"] }
    transit = {}
  }

  assert {
    condition     = one(vault_approle_auth_backend_role.broker[*].token_policies) == toset(["token-broker-client", "token-broker-transit"])
    error_message = "The role must have both policies."
  }
  assert {
    condition     = one(vault_transit_secret_backend_key.broker[*].exportable) == false
    error_message = "The key must not leave the engine."
  }
}
