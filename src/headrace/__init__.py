"""Headrace: industrial sensor data, from device to query."""
