"""Modbus TCP: polled registers and coils."""
