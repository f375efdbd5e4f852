variable "kv_mount" {
  description = "Where the KV v2 engine is mounted: the broker's VAULT_KV_MOUNT."
  type        = string
  default     = "secret"

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$", var.kv_mount))
    error_message = "kv_mount must be a path without a slash at either end and without wildcards."
  }
}

variable "create_kv_mount" {
  description = "Whether to mount the KV v2 engine; false where it is there already."
  type        = bool
  default     = true
}

variable "kv_path" {
  description = "The secret, without the mount and without data/: the broker's VAULT_KV_PATH."
  type        = string
  default     = "token-broker/google"

  validation {
    condition     = can(regex("^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$", var.kv_path)) && !startswith(var.kv_path, "data/")
    error_message = "kv_path must be a path without wildcards, and without data/ before it."
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

variable "name" {
  description = "Name of the policies and roles."
  type        = string
  default     = "token-broker"

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9_-]*$", var.name))
    error_message = "name may have small letters, digits, _ and - only."
  }
}

variable "transit" {
  description = "A key of the transit engine that encrypts the broker's own keys. For BROKER_KEY_SOURCE=vault-transit, which this release does not have yet; null makes none."
  type = object({
    mount        = optional(string, "transit")
    create_mount = optional(bool, true)
    key          = optional(string, "token-broker")
  })
  default = null

  validation {
    condition = var.transit == null || alltrue([
      for path in [try(var.transit.mount, ""), try(var.transit.key, "")] :
      can(regex("^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$", path))
    ])
    error_message = "transit.mount and transit.key must be paths without a slash at either end and without wildcards."
  }
}

variable "kubernetes" {
  description = "Login by the broker's service account; audience is the one that its projected token is made for. The auth method must be there, mounted at kubernetes/, and configured."
  type = object({
    namespace       = string
    service_account = string
    audience        = string
  })
  default = null

  # Without an audience, tokens for other services would be accepted.
  validation {
    condition     = var.kubernetes == null || can(regex("^\\S+$", var.kubernetes.audience))
    error_message = "kubernetes.audience must not be empty: without one, a token made for another service logs in."
  }

  validation {
    condition = var.kubernetes == null || alltrue([
      for name in [try(var.kubernetes.namespace, ""), try(var.kubernetes.service_account, "")] :
      can(regex("^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", name))
    ])
    error_message = "kubernetes.namespace and kubernetes.service_account must name one of each, without wildcards."
  }
}

variable "approle" {
  description = "Login by AppRole, outside of Kubernetes. The auth method must be there, mounted at approle/."
  type = object({
    secret_id_bound_cidrs = optional(list(string))
    secret_id_ttl_seconds = optional(number, 0)
  })
  default = null

  validation {
    condition = var.approle == null || alltrue([
      for block in coalesce(try(var.approle.secret_id_bound_cidrs, null), []) : can(cidrhost(block, 0))
    ])
    error_message = "approle.secret_id_bound_cidrs must be CIDR blocks, such as 10.0.0.0/8."
  }

  validation {
    condition     = var.approle == null || try(var.approle.secret_id_ttl_seconds >= 0, false)
    error_message = "approle.secret_id_ttl_seconds must be 0 (for ever) or more."
  }
}

variable "token_ttl_seconds" {
  description = "How long a login lasts before the broker renews it."
  type        = number
  default     = 3600

  validation {
    condition     = var.token_ttl_seconds >= 60 && var.token_ttl_seconds <= var.token_max_ttl_seconds
    error_message = "token_ttl_seconds must be 60 or more, and token_max_ttl_seconds at most."
  }
}

variable "token_max_ttl_seconds" {
  description = "After this the broker logs in again."
  type        = number
  default     = 86400
}
