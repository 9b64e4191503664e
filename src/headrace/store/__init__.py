"""Segments, commits, tiers and queries."""
