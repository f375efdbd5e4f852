terraform {
  # 1.11 brought write-only arguments, which keep the client secret out of plans and state.
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7.0"
    }
  }
}
