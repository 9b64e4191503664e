"""Codecs: one file each, pure functions over arrays."""
