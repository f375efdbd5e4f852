# `terraform test`, with a mocked provider.

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { id = "eu-central-1" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws", dns_suffix = "amazonaws.com" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\":\"2012-10-17\",\"Statement\":[]}" }
  }
  mock_resource "aws_secretsmanager_secret" {
    defaults = { arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:token-broker/google-AbCdEf" }
  }
  mock_resource "aws_iam_policy" {
    defaults = { arn = "arn:aws:iam::123456789012:policy/token-broker" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/token-broker" }
  }
}

variables {
  client = {
    client_id     = "1234-abc.apps.googleusercontent.com"
    client_secret = "made-up"
  }
  replica_regions = ["eu-west-1"]
}

run "the_secret_is_replicated_and_no_role_is_made_unasked" {
  assert {
    condition     = [for each in aws_secretsmanager_secret.client.replica : each.region] == ["eu-west-1"]
    error_message = "eu-west-1 must get a replica."
  }
  assert {
    condition     = output.secret_arns["eu-west-1"] == "arn:aws:secretsmanager:eu-west-1:123456789012:secret:token-broker/google-AbCdEf"
    error_message = "The replica's ARN differs from the first one's by its region only."
  }
  assert {
    condition     = toset(keys(output.secret_arns)) == toset(["eu-central-1", "eu-west-1"])
    error_message = "Each region has an ARN."
  }
  assert {
    condition     = output.role_arn == null
    error_message = "There must be no role without pod_identity and irsa."
  }
}

run "the_policy_allows_to_read_the_one_secret_in_both_regions" {
  assert {
    condition     = length(data.aws_iam_policy_document.read.statement) == 1
    error_message = "Without KMS keys the policy has one statement."
  }
  assert {
    condition     = data.aws_iam_policy_document.read.statement[0].actions == toset(["secretsmanager:GetSecretValue"])
    error_message = "Reading must be all that is allowed."
  }
  assert {
    condition = data.aws_iam_policy_document.read.statement[0].resources == toset([
      "arn:aws:secretsmanager:eu-central-1:123456789012:secret:token-broker/google-??????",
      "arn:aws:secretsmanager:eu-west-1:123456789012:secret:token-broker/google-??????",
    ])
    error_message = "The policy must name the secret in both regions, and nothing else."
  }
}

run "a_new_version_is_written_and_keys_are_for_secrets_manager_only" {
  variables {
    client_version = 2
    kms_key_arns   = { "eu-west-1" = "arn:aws:kms:eu-west-1:123456789012:key/1234" }
  }

  assert {
    condition     = aws_secretsmanager_secret_version.client.secret_string_wo_version == 2
    error_message = "client_version must have the new client written."
  }
  assert {
    condition     = one([for each in aws_secretsmanager_secret.client.replica : each.kms_key_id]) == "arn:aws:kms:eu-west-1:123456789012:key/1234"
    error_message = "The replica must be encrypted with its region's key."
  }
  assert {
    condition     = data.aws_iam_policy_document.read.statement[1].resources == toset(["arn:aws:kms:eu-west-1:123456789012:key/1234"])
    error_message = "The policy must allow to decrypt with this key."
  }
  assert {
    condition = one([
      for each in data.aws_iam_policy_document.read.statement[1].condition : each.values
    ]) == tolist(["secretsmanager.eu-west-1.amazonaws.com"])
    error_message = "The key is for Secrets Manager's use only."
  }
}

run "pod_identity_binds_one_service_account" {
  variables {
    pod_identity = { cluster_name = "prod", namespace = "broker", service_account = "token-broker" }
  }

  assert {
    condition     = one(aws_eks_pod_identity_association.broker[*].service_account) == "token-broker"
    error_message = "The service account must be associated with the role."
  }
  assert {
    condition = anytrue([
      for each in data.aws_iam_policy_document.trust[0].statement[0].condition :
      each.variable == "aws:RequestTag/kubernetes-service-account" && each.values == tolist(["token-broker"])
    ])
    error_message = "No other service account may take on the role."
  }
}

run "irsa_binds_one_service_account_and_the_audience" {
  variables {
    irsa = {
      oidc_provider_arn = "arn:aws:iam::123456789012:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/ABC"
      namespace         = "broker"
      service_account   = "token-broker"
    }
  }

  assert {
    condition = {
      for each in data.aws_iam_policy_document.trust[0].statement[0].condition : each.variable => one(each.values)
      } == {
      "oidc.eks.eu-central-1.amazonaws.com/id/ABC:sub" = "system:serviceaccount:broker:token-broker"
      "oidc.eks.eu-central-1.amazonaws.com/id/ABC:aud" = "sts.amazonaws.com"
    }
    error_message = "The trust policy must name the account and the audience."
  }
}

# Every run starts the provider again, so independent refusals share a run.

run "malformed_names_counts_and_regions_are_refused" {
  command = plan
  variables {
    secret_name             = "token-broker/*"
    client                  = { client_id = "broker@project.iam.gserviceaccount.com", client_secret = "made-up" }
    client_version          = 1.5
    replica_regions         = ["Frankfurt"]
    kms_key_arns            = { "eu-west-1" = "arn:aws:kms:us-east-1:123456789012:key/1234" }
    recovery_window_in_days = 0
    resource_name           = "token broker"
    irsa                    = { oidc_provider_arn = "https://oidc.example.com", namespace = "broker", service_account = "token-broker" }
  }
  expect_failures = [
    var.secret_name, var.client, var.client_version, var.replica_regions, var.kms_key_arns,
    var.recovery_window_in_days, var.resource_name, var.irsa,
  ]
}

run "an_ambiguous_name_an_empty_secret_and_two_identities_are_refused" {
  command = plan
  variables {
    secret_name  = "token-broker/google-AbCdEf"
    client       = { client_id = "1234-abc.apps.googleusercontent.com", client_secret = "" }
    pod_identity = { cluster_name = "prod", namespace = "broker", service_account = "token-broker" }
    irsa = {
      oidc_provider_arn = "arn:aws:iam::123456789012:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/ABC"
      namespace         = "broker"
      service_account   = "token-broker"
    }
  }
  expect_failures = [var.secret_name, var.client, var.pod_identity]
}

run "any_service_account_is_refused" {
  command = plan
  variables {
    irsa = {
      oidc_provider_arn = "arn:aws:iam::123456789012:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/ABC"
      namespace         = "broker"
      service_account   = "*"
    }
  }
  expect_failures = [var.irsa]
}

run "a_replica_beside_the_first_copy_is_refused" {
  command = plan
  variables {
    replica_regions = ["eu-central-1"]
  }
  expect_failures = [aws_secretsmanager_secret.client]
}

run "a_key_for_a_region_without_a_copy_is_refused" {
  command = plan
  variables {
    kms_key_arns = { "us-east-1" = "arn:aws:kms:us-east-1:123456789012:key/1234" }
  }
  expect_failures = [aws_secretsmanager_secret.client]
}
