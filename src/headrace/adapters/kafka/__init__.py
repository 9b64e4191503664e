"""Kafka: what a cluster's topics bring."""
