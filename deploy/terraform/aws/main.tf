data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  region    = data.aws_region.current.id
  regions   = toset(concat([local.region], tolist(var.replica_regions)))
  partition = data.aws_partition.current.partition
  account   = data.aws_caller_identity.current.account_id
}

resource "aws_secretsmanager_secret" "client" {
  name                    = var.secret_name
  description             = "Google's OAuth client of the token broker: client_id, client_secret"
  kms_key_id              = lookup(var.kms_key_arns, local.region, null)
  recovery_window_in_days = var.recovery_window_in_days
  tags                    = var.tags

  dynamic "replica" {
    for_each = var.replica_regions

    content {
      region     = replica.value
      kms_key_id = lookup(var.kms_key_arns, replica.value, null)
    }
  }

  lifecycle {
    precondition {
      condition     = !contains(var.replica_regions, local.region)
      error_message = "replica_regions must not name ${local.region}: the first copy is there."
    }
    precondition {
      condition     = length(setsubtract(keys(var.kms_key_arns), local.regions)) == 0
      error_message = "kms_key_arns names a region that has no copy of the secret."
    }
  }
}

resource "aws_secretsmanager_secret_version" "client" {
  secret_id                = aws_secretsmanager_secret.client.id
  secret_string_wo         = jsonencode(var.client)
  secret_string_wo_version = var.client_version
}

# By name and not by ARN, which differs between regions. AWS appends a hyphen and six characters.
data "aws_iam_policy_document" "read" {
  statement {
    sid     = "ReadTheClient"
    actions = ["secretsmanager:GetSecretValue"]
    resources = [
      for region in local.regions :
      "arn:${local.partition}:secretsmanager:${region}:${local.account}:secret:${var.secret_name}-??????"
    ]
  }

  dynamic "statement" {
    for_each = var.kms_key_arns

    content {
      sid       = "DecryptIn${replace(title(replace(statement.key, "-", " ")), " ", "")}"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = ["secretsmanager.${statement.key}.${data.aws_partition.current.dns_suffix}"]
      }
    }
  }
}

resource "aws_iam_policy" "read" {
  name        = var.resource_name
  description = "Read Google's OAuth client of the token broker, in every region that has a copy"
  policy      = data.aws_iam_policy_document.read.json
  tags        = var.tags
}
