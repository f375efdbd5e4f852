# Invalid variables. These runs need only the variables.

mock_provider "vault" {}

variables {
  client = {
    client_id     = "1234-abc.apps.googleusercontent.com"
    client_secret = "made-up"
  }
}

run "malformed_paths_counts_and_names_are_refused" {
  command = plan
  variables {
    kv_mount          = "secret/"
    kv_path           = "data/token-broker/google"
    client            = { client_id = "broker@project.iam.gserviceaccount.com", client_secret = "made-up" }
    client_version    = 0
    name              = "Token Broker"
    transit           = { mount = "transit", key = "*" }
    kubernetes        = { namespace = "broker", service_account = "token-broker", audience = "" }
    approle           = { secret_id_bound_cidrs = ["10.0.0.0"] }
    token_ttl_seconds = 5
  }
  expect_failures = [
    var.kv_mount, var.kv_path, var.client, var.client_version, var.name, var.transit, var.kubernetes,
    var.approle, var.token_ttl_seconds,
  ]
}

run "wildcards_an_empty_secret_and_a_login_longer_than_the_longest_are_refused" {
  command = plan
  variables {
    kv_path               = "token-broker/*"
    client                = { client_id = "1234-abc.apps.googleusercontent.com", client_secret = " " }
    kubernetes            = { namespace = "*", service_account = "*", audience = "vault.example.com" }
    approle               = { secret_id_ttl_seconds = -1 }
    token_ttl_seconds     = 7200
    token_max_ttl_seconds = 3600
  }
  expect_failures = [var.kv_path, var.client, var.kubernetes, var.approle, var.token_ttl_seconds]
}

run "good_values_are_taken" {
  command = plan
  variables {
    kv_mount   = "kv/prod"
    kv_path    = "team/token-broker"
    transit    = {}
    kubernetes = { namespace = "broker", service_account = "token-broker", audience = "vault.example.com" }
    approle    = { secret_id_bound_cidrs = ["10.0.0.0/8"], secret_id_ttl_seconds = 86400 }
  }
}
