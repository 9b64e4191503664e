"""Simulated sensors without any transport: something to try pipelines with."""
