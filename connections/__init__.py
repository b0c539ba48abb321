"""How the parts connect to Kafka, the schema registry and the store: settings files, read where a client is opened.

settings  a file of settings, and the secrets that it refers to
kafka     its names as librdkafka has them
java      its names as Kafka's Java clients have them
registry  the schema registry's
store     the online store's
store_connection  its connections, which raise nothing but redis-py's errors
secrets   Google's Secret Manager
"""
