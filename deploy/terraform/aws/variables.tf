variable "secret_name" {
  description = "Name of the secret in Secrets Manager, the same in every region."
  type        = string
  default     = "token-broker/google"

  validation {
    condition     = can(regex("^[A-Za-z0-9/_+=.@-]{1,512}$", var.secret_name))
    error_message = "secret_name may have letters, digits and / _ + = . @ - only, 512 at most."
  }

  # Secrets Manager appends a hyphen and six characters of its own to the ARN.
  validation {
    condition     = !can(regex("-[A-Za-z0-9]{6}$", var.secret_name))
    error_message = "secret_name must not end with a hyphen and six characters: AWS takes these for its own suffix."
  }
}

variable "client" {
  description = "Google's OAuth client, as the console showed it. Write-only: it is in no plan and no state."
  type = object({
    client_id     = string
    client_secret = string
  })
  ephemeral = true
  sensitive = true

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]+\\.apps\\.googleusercontent\\.com$", var.client.client_id))
    error_message = "client.client_id must be the id of an OAuth client, which ends with .apps.googleusercontent.com."
  }

  validation {
    condition     = can(regex("^\\S+$", var.client.client_secret))
    error_message = "client.client_secret must not be empty and must not contain white space."
  }
}

variable "client_version" {
  description = "Terraform cannot see that the client changed: add one whenever it does."
  type        = number
  default     = 1

  validation {
    condition     = var.client_version >= 1 && floor(var.client_version) == var.client_version
    error_message = "client_version must be a whole number, 1 or more."
  }
}

variable "replica_regions" {
  description = "Regions that get a read-only copy, kept in step by AWS. The first copy is in the provider's region."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for region in var.replica_regions : can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", region))])
    error_message = "replica_regions must be names of regions, such as eu-west-1."
  }
}

variable "kms_key_arns" {
  description = "Customer-managed KMS keys by region. A region without one uses AWS's key aws/secretsmanager."
  type        = map(string)
  default     = {}

  validation {
    condition = alltrue([
      for region, arn in var.kms_key_arns : can(regex("^arn:[a-z-]+:kms:${region}:[0-9]{12}:key/.+$", arn))
    ])
    error_message = "kms_key_arns must be ARNs of KMS keys (not aliases), each in the region that it is given for."
  }
}

variable "recovery_window_in_days" {
  description = "How long a deleted secret can be restored."
  type        = number
  default     = 30

  validation {
    condition     = var.recovery_window_in_days >= 7 && var.recovery_window_in_days <= 30
    error_message = "recovery_window_in_days must be 7 to 30."
  }
}

variable "pod_identity" {
  description = "The broker's service account, for EKS Pod Identity. At most one of pod_identity and irsa."
  type = object({
    cluster_name    = string
    namespace       = string
    service_account = string
  })
  default = null

  validation {
    condition     = var.pod_identity == null || var.irsa == null
    error_message = "Give pod_identity or irsa, not both."
  }
}

variable "irsa" {
  description = "The broker's service account, for IAM roles for service accounts (IRSA)."
  type = object({
    oidc_provider_arn = string
    namespace         = string
    service_account   = string
  })
  default = null

  validation {
    condition = var.irsa == null || can(
      regex("^arn:[a-z-]+:iam::[0-9]{12}:oidc-provider/.+$", var.irsa.oidc_provider_arn)
    )
    error_message = "irsa.oidc_provider_arn must be the ARN of the cluster's OIDC provider."
  }

  validation {
    condition = var.irsa == null || alltrue([
      for name in [try(var.irsa.namespace, ""), try(var.irsa.service_account, "")] :
      can(regex("^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", name))
    ])
    error_message = "irsa.namespace and irsa.service_account must be names of one namespace and one account, without wildcards."
  }
}

variable "resource_name" {
  description = "Name of the IAM policy and role."
  type        = string
  default     = "token-broker"

  validation {
    condition     = can(regex("^[A-Za-z0-9+=,.@_-]{1,64}$", var.resource_name))
    error_message = "resource_name may have letters, digits and + = , . @ _ - only, 64 at most."
  }
}

variable "tags" {
  description = "Tags of everything that is made."
  type        = map(string)
  default     = {}
}
