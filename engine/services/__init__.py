"""Servers of one machine: a real Postgres, a real Apache Kafka, and a small broker, on loopback only."""
