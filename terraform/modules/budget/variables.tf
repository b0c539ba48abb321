variable "project_id" {
  description = "The Google Cloud project's id."
  type        = string
}

variable "project_number" {
  description = "The Google Cloud project's number: how a budget names it."
  type        = number
}

variable "labels" {
  description = "On everything that takes labels."
  type        = map(string)
}

variable "billing_account" {
  description = "The billing account that pays for the project: XXXXXX-XXXXXX-XXXXXX."
  type        = string

  validation {
    condition     = can(regex("^[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}$", var.billing_account))
    error_message = "billing_account must be of the form 012345-6789AB-CDEF01."
  }
}

variable "amount" {
  description = "What a month may cost, in the billing account's currency, whole units."
  type        = number

  validation {
    condition     = var.amount >= 1 && floor(var.amount) == var.amount
    error_message = "amount must be a whole number, at least 1."
  }
}

variable "thresholds" {
  description = "Shares of the amount at which a mail is sent, besides the forecast of all of it."
  type        = list(number)
  default     = [0.5, 0.9, 1.0]

  validation {
    condition     = length(var.thresholds) > 0 && alltrue([for share in var.thresholds : share > 0])
    error_message = "thresholds must be shares above 0, at least one."
  }
}

variable "alert_emails" {
  description = "Who is told, besides the billing account's administrators; at most five."
  type        = list(string)

  validation {
    condition     = length(var.alert_emails) >= 1 && length(var.alert_emails) <= 5 && alltrue([for mail in var.alert_emails : can(regex("^[^@ ]+@[^@ ]+$", mail))])
    error_message = "alert_emails must be one to five mail addresses."
  }
}
