"""A plant that consumes from Kafka, as a process: killed, started again, and what it has stored."""

import json

from headrace.adapters.kafka.simulator import ProducingDevice, SimulatedCluster

PLANT = """version = 1
[plant]
levels = ["site", "area", "device", "signal"]
[store]
url = "./store"
[api]
listen = "127.0.0.1:0"
[adapters.cluster]
protocol = "kafka"
brokers = ["{broker}"]
options = {{ "session.timeout.ms" = 1200, "heartbeat.interval.ms" = 30 }}
[adapters.cluster.topics]
"plant.{{area}}" = {{ path = "leon/{{area}}/{{message_key}}/{{key}}" }}
"""
START_MS = 1_767_225_600_000


def test_a_plant_that_is_killed_has_every_sample_once(headrace, ask):
    """What had not been committed comes again, with the time of its message, and is recognised by the store."""
    cluster = SimulatedCluster()
    cluster.create("plant.a", 2)
    n_sent = 0

    def produce(n):
        nonlocal n_sent
        device = ProducingDevice(cluster.brokers)
        for i in range(n_sent, n_sent + n):
            device.send("plant.a", f'{{"count": {i}}}', "d", partition=0, timestamp=START_MS + i)
        device.delivered()
        n_sent += n

    def counts():
        code, out, _ = ask(
            "query", "leon/a/d/count", "-t", headrace.store, "--from", "2025-12-31T00:00:00Z", "--to", "2027-01-01T00:00:00Z",
            "--json",
        )  # fmt: skip
        return [] if code else [int(row["value"]) for row in json.loads(out)["rows"]]

    try:
        (headrace.folder / "plant.toml").write_text(PLANT.format(broker=cluster.brokers[0]))
        produce(3_000)
        headrace.start()
        headrace.until(lambda: headrace.adapter().get("samples", 0) >= 3_000)
        produce(2_000)
        headrace.until(lambda: headrace.adapter().get("samples", 0) > 3_000)
        headrace.kill()
        produce(1_000)
        headrace.start()
        headrace.until(lambda: headrace.adapter().get("samples", 0) >= 1_000)
        headrace.until(lambda: counts() == list(range(n_sent)))
        code, out, err = ask(
            "adapters", "probe", "cluster", "-t", headrace.folder / "plant.toml", "--count", "1"
        )
        assert code == 0, err
        assert f"6,000 messages of 1 topics at {cluster.brokers[0]}, looking for plant.{{area}}" in out
        assert "rule plant.{area}" in out
        assert "leon/a/d/count = 5999" in out.replace(",", "")
        assert headrace.stop() == 0
    finally:
        cluster.close()
