"""Adapters: one folder for each protocol."""
