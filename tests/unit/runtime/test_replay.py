"""What a replay makes of rejects, without a plant."""

from types import SimpleNamespace

from headrace.core.clock import VirtualClock
from headrace.core.config import parse_plant
from headrace.core.events import Reject, RejectCode
from headrace.core.sensors import SensorDirectory
from headrace.ingest.intake_core import IntakeSettings
from headrace.runtime.assemble import check_plant
from headrace.runtime.replay import RejectsReplay

NOW_NS = 1_767_225_600_000_000_000
LINES = b"1767225500000,1,2\n1767225500001,3,4\n1767225500002,5"


async def test_a_message_with_several_refused_lines_is_decoded_once(tmp_path):
    """Each line is a reject of its own that has the bytes of the whole message."""
    topics = {"plant/{d}": {"path": "s/a/{d}/{key}", "values": "csv", "columns": ["ts", "a"], "time": "ts"}}
    section = {"protocol": "mqtt", "url": "mqtt://b", "topics": topics}
    written = {"version": 1, "plant": {"levels": ["site", "line", "device", "signal"]}}
    adapter = check_plant(parse_plant({**written, "adapters": {"x": section}}, tmp_path))
    core = SimpleNamespace(settings=IntakeSettings())
    intake = SimpleNamespace(core=core, directory=SensorDirectory(), clock=VirtualClock(NOW_NS))
    replay = RejectsReplay(None, intake, adapter.adapters.get)
    known = {}
    lines = [Reject(RejectCode.MALFORMED, "x", "plant/d", f"line {n}", LINES, NOW_NS) for n in (1, 2)]
    other = Reject(RejectCode.MALFORMED, "x", "plant/d", "line 1", b"1767225500003,6", NOW_NS)
    judged = [await replay._judge(one, known) for one in (*lines, other)]
    assert [sum(batch.n_samples for batch in one.batches) for one in judged] == [1, 0, 1]
    assert judged[0].why == judged[1].why == "malformed: 3 cells in a line, expected 2: ts,a"
    assert not judged[2].why
