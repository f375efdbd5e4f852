terraform {
  # 1.11 brought write-only arguments, which keep the client secret out of plans and state.
  required_version = ">= 1.11"

  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = ">= 5.0, < 6.0"
    }
  }
}
