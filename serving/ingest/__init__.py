"""Events over HTTP: `POST /api/v1/events` validates, produces to Kafka, and answers what became of each event.

check       what is wrong with the settings, before the server starts
routes      the addresses, and what they answer
webhooks    requests that a shop system signed
budget      how many events a caller may send
door        a request's events, each judged and placed
intake      one raw event to records of ours, by the code that the jobs judge records with
deliveries  records to Kafka, and whether they are there

Off unless `--events` names a cluster; then nothing here is imported.
"""
