"""Reading and writing Kafka logs."""
