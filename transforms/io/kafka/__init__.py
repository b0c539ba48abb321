"""Kafka: a source of blocks and a sink of records. librdkafka inside, no Java, no cross-language step.

topic     what a topic is now
position  how far a reader has come, as the runner's checkpoint keeps it
headers   of messages, whatever their names
reader    a connection to some partitions: their blocks, their clocks
waiting   connections between two bundles
source    the splittable DoFn that joins these
limits    what a topic takes
sink      records into a topic, and letters
"""

from transforms.io.kafka.sink import KafkaRecord, WriteLettersToKafka, WriteToKafka
from transforms.io.kafka.source import ReadBlocksFromKafka
from transforms.io.kafka.topic import KafkaTopic

__all__ = ["KafkaRecord", "KafkaTopic", "ReadBlocksFromKafka", "WriteLettersToKafka", "WriteToKafka"]
