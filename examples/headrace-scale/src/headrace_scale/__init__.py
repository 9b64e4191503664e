"""Scales that are asked for their weight."""
