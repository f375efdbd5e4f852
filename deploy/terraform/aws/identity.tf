# The role that the broker's pods assume; without pod_identity or irsa there is none.

locals {
  has_role = var.pod_identity != null || var.irsa != null
  issuer   = var.irsa == null ? "" : split(":oidc-provider/", var.irsa.oidc_provider_arn)[1]
}

data "aws_iam_policy_document" "trust" {
  count = local.has_role ? 1 : 0

  dynamic "statement" {
    for_each = var.pod_identity[*]

    content {
      actions = ["sts:AssumeRole", "sts:TagSession"]

      principals {
        type        = "Service"
        identifiers = ["pods.eks.amazonaws.com"]
      }

      condition {
        test     = "StringEquals"
        variable = "aws:SourceAccount"
        values   = [local.account]
      }
      condition {
        test     = "StringEquals"
        variable = "aws:RequestTag/kubernetes-namespace"
        values   = [statement.value.namespace]
      }
      condition {
        test     = "StringEquals"
        variable = "aws:RequestTag/kubernetes-service-account"
        values   = [statement.value.service_account]
      }
    }
  }

  dynamic "statement" {
    for_each = var.irsa[*]

    content {
      actions = ["sts:AssumeRoleWithWebIdentity"]

      principals {
        type        = "Federated"
        identifiers = [statement.value.oidc_provider_arn]
      }

      condition {
        test     = "StringEquals"
        variable = "${local.issuer}:sub"
        values   = ["system:serviceaccount:${statement.value.namespace}:${statement.value.service_account}"]
      }
      condition {
        test     = "StringEquals"
        variable = "${local.issuer}:aud"
        values   = ["sts.amazonaws.com"]
      }
    }
  }
}

resource "aws_iam_role" "broker" {
  count = local.has_role ? 1 : 0

  name               = var.resource_name
  description        = "Taken on by the token broker's pods"
  assume_role_policy = data.aws_iam_policy_document.trust[0].json
  tags               = var.tags
}

resource "aws_iam_role_policy_attachment" "read" {
  count = local.has_role ? 1 : 0

  role       = aws_iam_role.broker[0].name
  policy_arn = aws_iam_policy.read.arn
}

resource "aws_eks_pod_identity_association" "broker" {
  count = var.pod_identity == null ? 0 : 1

  cluster_name    = var.pod_identity.cluster_name
  namespace       = var.pod_identity.namespace
  service_account = var.pod_identity.service_account
  role_arn        = aws_iam_role.broker[0].arn
  tags            = var.tags
}
