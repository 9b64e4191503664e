"""Replay: files as if they were a device."""
