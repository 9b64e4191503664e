"""Node ids as they are written: ``ns=2;s=Line1.Temp``, ``nsu=http://maker.example/;i=1001``, ``ns=2;s={node}.Temp``.

The text is OPC UA's own and is kept as written. A namespace given by its URI (``nsu=``) is looked up on the server at
each connect, because servers may number their namespaces anew at each start. ``{node}`` stands for a device's own
``node``, so that a thousand equal devices share one profile.

Source: OPC 10000-6, section 5.1.12 and 5.3.1.10 (string forms of NodeId and ExpandedNodeId).
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, replace
from uuid import UUID

from headrace.adapters.abilities import TagAddress
from headrace.core.errors import ConfigError

DEVICE_NODE = "{node}"
_FORM = "[ns=INDEX;|nsu=URI;]s=TEXT (or i=NUMBER, g=GUID, b=BASE64)"
_SPLIT = re.compile(r"(?:ns=(?P<ns>\d{1,5});|nsu=(?P<uri>[^;]+);)?(?P<kind>[isgb])=(?P<id>.+)", re.DOTALL)
_ESCAPED = (("%3B", ";"), ("%25", "%"))
_OWN_URI = "http://opcfoundation.org/UA/"
"""URI of namespace 0, on every server."""


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """Where a server keeps a variable.

    Parameters
    ----------
    kind : i, s, g or b, as in the text; identifier : the text behind it.
    namespace : its index; uri : the namespace's URI where it is given that way, else empty.
    """

    kind: str
    identifier: str
    namespace: int = 0
    uri: str = ""

    @property
    def is_relative(self) -> bool:
        """Whether it needs a device's node."""
        return DEVICE_NODE in self.identifier

    def of_device(self, node: str) -> NodeAddress:
        """The address on a device whose node is `node`.

        Raises
        ------
        ConfigError : the device has no node, or what comes out is no node id.
        """
        if not self.is_relative:
            return self
        if not node:
            raise ConfigError(
                f"address {str(self)!r} needs the device's node; write node=... behind the ? of its url"
            )
        whole = replace(self, identifier=self.identifier.replace(DEVICE_NODE, node))
        whole.check()
        return whole

    def check(self) -> None:
        """Raise `ConfigError` where the identifier is not of its kind."""
        try:
            self.value()
        except (ValueError, binascii.Error) as e:
            raise ConfigError(f"{str(self)!r} is no node id: {e}") from e

    def value(self) -> int | str | bytes | UUID:
        """The identifier as Python's own type. Raises ValueError."""
        if self.kind == "i":
            if not self.identifier.isdecimal() or int(self.identifier) >= 2**32:
                raise ValueError(f"{self.identifier!r} is not a number of 32 bits")
            return int(self.identifier)
        if self.kind == "g":
            return UUID(self.identifier)
        if self.kind == "b":
            return base64.b64decode(self.identifier, validate=True)
        return self.identifier

    @property
    def place(self) -> str:
        """The same for all ways to write the same node."""
        one = replace(self, uri="") if self.uri == _OWN_URI else self
        if one.is_relative:
            return str(one)
        value = one.value()
        text = base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
        return str(replace(one, identifier=text))

    def __str__(self) -> str:
        """As it is written."""
        text = f"{self.kind}={self.identifier}"
        if self.uri:
            return f"nsu={self.uri.replace('%', '%25').replace(';', '%3B')};{text}"
        return f"ns={self.namespace};{text}" if self.namespace else text


def parse_node(text: str) -> NodeAddress:
    """A node id from its text, which may hold ``{node}``.

    Raises
    ------
    ConfigError : not such a text.

    Examples
    --------
    >>> str(parse_node("ns=2;s={node}.Temp").of_device("Line1.Oven2"))
    'ns=2;s=Line1.Oven2.Temp'
    """
    found = _SPLIT.fullmatch(text)
    if found is None or int(found["ns"] or 0) > 65_535:
        raise ConfigError(f"{text!r} is no node id; write {_FORM}")
    uri = found["uri"] or ""
    for escaped, plain in _ESCAPED:
        uri = uri.replace(escaped, plain)
    address = NodeAddress(found["kind"], found["id"], int(found["ns"] or 0), uri)
    if not address.is_relative:
        address.check()
    return address


def tag_address(address: str, dtype: str) -> TagAddress:
    """Understand a node id of a tag list; what type it has only its server knows, so that of the list counts.

    Raises
    ------
    ConfigError : it is none.
    """
    try:
        found = parse_node(address)
    except ConfigError as e:
        raise ConfigError(f"tag address {e.message}") from e
    return TagAddress(address, dtype, found.place)
