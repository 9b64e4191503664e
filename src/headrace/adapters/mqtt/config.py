"""Configuration of the MQTT adapter: ``[adapters.<name>]`` with ``protocol = "mqtt"``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from headrace.adapters.broker.config import BrokerSection
from headrace.adapters.payloads.base import RuleSettings


class MqttConfig(BrokerSection):
    """Messages of a broker, by topic rules."""

    protocol: Literal["mqtt"] = "mqtt"
    topics: dict[str, RuleSettings] = Field(
        description='"plant/{area}/{device}" = { path = "site/{area}/{device}/{key}" }'
    )
