"""Apache Kafka, by aiokafka."""
