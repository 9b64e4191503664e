"""The built-in adapters and payload decoders by name: one line each, nothing imported before it is used."""

from headrace.core.registry import Registry

ADAPTERS = Registry(
    "adapters",
    {
        "http": "headrace.adapters.http.adapter:HttpAdapter",
        "kafka": "headrace.adapters.kafka.adapter:KafkaAdapter",
        "modbus": "headrace.adapters.modbus.adapter:ModbusAdapter",
        "mqtt": "headrace.adapters.mqtt.adapter:MqttAdapter",
        "opcua": "headrace.adapters.opcua.adapter:OpcuaAdapter",
        "replay": "headrace.adapters.replay.adapter:ReplayAdapter",
        "sparkplug": "headrace.adapters.sparkplug.adapter:SparkplugAdapter",
    },
)
"""Protocol → adapter class; third parties: entry-point group ``headrace.adapters``."""

SCHEMES = {
    "kafka": "kafka", "modbus+rtu": "modbus", "modbus+tcp": "modbus", "modbus+tls": "modbus", "mqtt": "mqtt",
    "mqtts": "mqtt", "opc.tcp": "opcua",
}  # fmt: skip
"""Scheme of a url → the protocol that is spoken there, where no adapter says it."""

PAYLOADS = Registry(
    "payloads",
    {
        "fields": "headrace.adapters.payloads.json:FieldsDecoder",
        "number": "headrace.adapters.payloads.number:NumberDecoder",
        "csv": "headrace.adapters.payloads.csv:CsvDecoder",
        "line": "headrace.adapters.payloads.line:LinePayload",
        "arrow": "headrace.adapters.payloads.arrow:ArrowPayload",
        "registers": "headrace.adapters.payloads.register_messages:RegistersDecoder",
        "sparkplug": "headrace.adapters.payloads.sparkplug_messages:SparkplugDecoder",
    },
)
"""``values`` of a topic rule → decoder of message payloads; third parties: ``headrace.payloads``."""
