output "secret_name" {
  description = "The secret's name, the same in every region. Give the broker this, not an ARN."
  value       = aws_secretsmanager_secret.client.name
}

output "secret_arns" {
  description = "The secret's ARN by region."
  value = {
    for region in local.regions :
    region => replace(aws_secretsmanager_secret.client.arn, ":${local.region}:", ":${region}:")
  }
}

output "policy_arn" {
  description = "The policy that allows to read the secret. Attach it where the module makes no role."
  value       = aws_iam_policy.read.arn
}

output "role_arn" {
  description = "The role of the broker's pods; null without pod_identity and irsa."
  value       = one(aws_iam_role.broker[*].arn)
}
