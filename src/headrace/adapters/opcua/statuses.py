"""Status codes in words."""

from __future__ import annotations

from asyncua.ua.status_codes import get_name_and_doc


def status_text(code: int) -> str:
    """A code's name; in hexadecimal what has none. ``BadNodeIdUnknown``."""
    name, doc = get_name_and_doc(code & 0xFFFF_0000)
    return f"status 0x{code:08X}" if doc.startswith("Unknown") else name
