# Kubernetes service accounts speak for Google's, without any key.
#
# A module of its own, because of its place in the order: the pool PROJECT.svc.id.goog is made with the project's first
# cluster, and a binding to a member of a pool that is not there is refused. It takes the pool's name from the cluster.

resource "google_service_account_iam_member" "this" {
  for_each = var.accounts

  service_account_id = each.value
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.workload_pool}[${var.namespace}/${each.key}]"
}
