output "policies" {
  description = "Names of the policies that the broker needs."
  value       = local.policies
}

output "kubernetes_role" {
  description = "The role to log in with from Kubernetes: VAULT_ROLE. Null without kubernetes."
  value       = one(vault_kubernetes_auth_backend_role.broker[*].role_name)
}

output "approle_role_id" {
  description = "VAULT_ROLE_ID; null without approle. The secret id is made by hand, so that it is in no state."
  value       = one(vault_approle_auth_backend_role.broker[*].role_id)
}
