"""Addresses of tag lists: the type may stand in a column of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from headrace.adapters.abilities import TagAddress
from headrace.adapters.payloads.register_addresses import Numbering, parse_address
from headrace.core.errors import ConfigError

_TYPED = re.compile(r":[A-Za-z]\w*\Z")
_PLAIN, _STATE = "u16", "u8"


def tag_address(address: str, dtype: str, options: Mapping[str, Any]) -> TagAddress:
    """Understand a register's address; the type of the list is written into it where it has none.

    Raises
    ------
    ConfigError : it is none.
    """
    written = options.get("numbering", "")
    numbering = Numbering(written) if written in list(Numbering) else Numbering.ZERO
    found = parse_address(address, numbering)
    head, mark, rest = address.partition(";")
    is_bit = found.area.has_bits or found.bit is not None
    if dtype not in ("", _PLAIN) and not is_bit and not _TYPED.search(head):
        if dtype == _STATE:
            raise ConfigError(
                f"tag address {address!r} is a whole register, and the list says a state: name the bit, as in {head}.0, "
                f"or another type"
            )
        address = f"{head}:{dtype.upper()}{mark}{rest}"
        found = parse_address(address, numbering)
    return TagAddress(address, found.dtype, str(found))
