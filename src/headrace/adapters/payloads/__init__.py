"""Payload decoders shared by adapters: bytes to columns."""
