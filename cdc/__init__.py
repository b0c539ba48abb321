"""Change data capture up to Kafka: the shop's tables, what Debezium may see of them, and its connector.

python -m cdc setup | register | status | snapshot | slots
python -m cdc.workload
"""
