"""Simulated plants, devices, disks and whole systems."""
