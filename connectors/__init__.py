"""Where events come from and go to: the contracts and, beside them, Kafka."""
