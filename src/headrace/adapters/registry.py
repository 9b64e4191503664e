"""The built-in adapters and payload decoders by name: one line each, nothing imported before it is used."""

from headrace.core.registry import Registry

ADAPTERS = Registry(
    "adapters",
    {
        "http": "headrace.adapters.http.adapter:HttpAdapter",
        "kafka": "headrace.adapters.kafka.adapter:KafkaAdapter",
        "modbus": "headrace.adapters.modbus.adapter:ModbusAdapter",
        "mqtt": "headrace.adapters.mqtt.adapter:MqttAdapter",
        "replay": "headrace.adapters.replay.adapter:ReplayAdapter",
    },
)
"""Protocol → adapter class; third parties: entry-point group ``headrace.adapters``."""

PAYLOADS = Registry(
    "payloads",
    {
        "fields": "headrace.adapters.payloads.json:FieldsDecoder",
        "number": "headrace.adapters.payloads.number:NumberDecoder",
        "csv": "headrace.adapters.payloads.csv:CsvDecoder",
        "line": "headrace.adapters.payloads.line:LinePayload",
        "arrow": "headrace.adapters.payloads.arrow:ArrowPayload",
    },
)
"""``values`` of a topic rule → decoder of message payloads; third parties: ``headrace.payloads``."""
