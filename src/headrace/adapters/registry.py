"""The built-in adapters and payload decoders by name: one line each, nothing imported before it is used."""

from headrace.core.registry import Registry

ADAPTERS = Registry(
    "adapters",
    {
        "exec": "headrace.adapters.exec.adapter:ExecAdapter",
        "files": "headrace.adapters.files.adapter:FilesAdapter",
        "http": "headrace.adapters.http.adapter:HttpAdapter",
        "kafka": "headrace.adapters.kafka.adapter:KafkaAdapter",
        "modbus": "headrace.adapters.modbus.adapter:ModbusAdapter",
        "mqtt": "headrace.adapters.mqtt.adapter:MqttAdapter",
        "opcua": "headrace.adapters.opcua.adapter:OpcuaAdapter",
        "replay": "headrace.adapters.replay.adapter:ReplayAdapter",
        "sim": "headrace.adapters.sim.adapter:SimAdapter",
        "sparkplug": "headrace.adapters.sparkplug.adapter:SparkplugAdapter",
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
        "registers": "headrace.adapters.payloads.register_messages:RegistersDecoder",
        "sparkplug": "headrace.adapters.payloads.sparkplug_messages:SparkplugDecoder",
    },
)
"""``values`` of a topic rule → decoder of message payloads; third parties: ``headrace.payloads``."""
