"""Configuration of the Sparkplug adapter: ``[adapters.<name>]`` with ``protocol = "sparkplug"``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from headrace.adapters.broker.config import BrokerSection
from headrace.core.settings import DurationNs, SizeBytes

NAMESPACE = "spBv1.0"
_ID = r"[^+/#\x00]+"


class SparkplugConfig(BrokerSection):
    """Edge nodes and devices of a broker's Sparkplug groups."""

    protocol: Literal["sparkplug"] = "sparkplug"
    groups: Annotated[tuple[Annotated[str, Field(pattern=rf"^(\+|{_ID})$")], ...], Field(strict=False)] = (
        Field(default=("+",), min_length=1, description="ids of the groups to listen to; + stands for all")
    )
    host_id: str | None = Field(
        default=None,
        pattern=rf"^{_ID}$",
        description="makes us a host whose STATE nodes can watch: they keep their data while we are away",
    )
    path: str | None = Field(
        default=None,
        description="where metrics go; default {group}/{node}/{device}/{metric}, to be given where the plant's "
        "paths have other than 4 levels",
    )
    ids: dict[str, str] = Field(
        default_factory=dict,
        description='parts of ids, to be named in path: { group = "{site}:{area}" }',
    )
    node_device: str = Field(
        default="node", pattern=rf"^{_ID}$", description="stands for {device} in metrics of a node itself"
    )
    joiner: str | None = Field(
        default=None,
        pattern=r"^([^+#*{},\x00-\x1f/]+|/)$",
        description="between the parts of a metric's name that has a / in it; default / (levels of their own), or "
        ". where the plant names its levels",
    )
    reorder: DurationNs = Field(
        default="2s", validate_default=True, description="how long a message that is missing is waited for"
    )
    ask_rebirth: bool = Field(
        default=True,
        description="ask nodes for their births where we miss something; needs the right to publish",
    )
    rebirth_first: DurationNs = Field(
        default="10s", validate_default=True, description="wait before a node is asked again; doubles"
    )
    rebirth_most: DurationNs = Field(
        default="10m", validate_default=True, description="longest wait before a node is asked again"
    )
    take_transient: bool = Field(
        default=False, description="also store values that their node says not to store"
    )
    max_keys: int = Field(
        default=10_000, ge=1, le=65_535, description="metrics of one device; more are refused"
    )
    max_payload: SizeBytes = Field(
        default="4MB", validate_default=True, description="larger messages are refused"
    )
