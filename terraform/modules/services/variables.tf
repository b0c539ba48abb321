variable "project_id" {
  description = "The Google Cloud project's id."
  type        = string
}
