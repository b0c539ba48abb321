# What the daily DAG has to be told: the Airflow variable `daily_analytics` (docs/airflow.md), of what was made here. It
# makes nothing: clusters come and go with the DAG, and Composer is set up beside this.

locals {
  archive = "gs://${var.buckets["archive"]}/archive"
  report  = "gs://${var.buckets["lakehouse"]}/reports"

  daily_analytics = {
    project         = var.project_id
    region          = var.region
    bucket          = var.buckets["scratch"]
    service_account = var.service_account
    subnetwork      = var.subnetwork_id
    code            = "gs://${var.buckets["templates"]}/batch"
    archive         = local.archive
    stream          = var.bigquery_url
    warehouse       = "gs://${var.buckets["lakehouse"]}/warehouse"
    report          = local.report
    namespace       = var.namespace
    jars            = concat([for jar in var.jars : "gs://${var.buckets["templates"]}/batch/${jar}"], ["file:///usr/lib/spark/external/spark-avro.jar"])

    # BigLake's catalogue. Its warehouse is a whole bucket, which overrules the folder above.
    catalog = {
      "type"                       = "rest"
      "uri"                        = "https://biglake.googleapis.com/iceberg/v1/restcatalog"
      "warehouse"                  = "gs://${var.buckets["lakehouse"]}"
      "io-impl"                    = "org.apache.iceberg.gcp.gcs.GCSFileIO"
      "rest.auth.type"             = "google"
      "header.x-goog-user-project" = var.project_id
    }
  }
}
