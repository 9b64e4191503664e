"""A desk at which values are filed, and a server that says what it was told to."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary

from headrace.adapters.opcua.addresses import parse_node
from headrace.adapters.opcua.asking import Feed
from headrace.adapters.opcua.captured import AnswerTap, mark_of
from headrace.adapters.opcua.client import UaConnection
from headrace.adapters.opcua.config import ServerAddress, UaDevicePlan, UaSignal
from headrace.adapters.opcua.filing import Filing
from headrace.adapters.opcua.inbox import ValueInbox
from headrace.adapters.opcua.messages import from_data_values
from headrace.adapters.opcua.tags import TagTable
from headrace.core.sensors import SensorDirectory
from headrace.core.settings import SignalSettings
from headrace.testing.adapters import RecordingSink

NOW = datetime(2026, 11, 27, tzinfo=UTC)
NOW_NS = int(NOW.timestamp()) * 10**9
T = ua.VariantType


def signal(name, **more):
    settings = SignalSettings(
        address="i=1", **{k: more.pop(k) for k in ("kind", "labels", "unit") if k in more}
    )
    return UaSignal(name, parse_node("ns=2;s={node}." + name), settings, **more)


def plan(path, *signals, node="n"):
    return UaDevicePlan(path, ServerAddress("h", 1), node, 1.0, 10**9, "p", signals)


class Desk:
    """A filing with its tags."""

    def __init__(self, *plans, time="auto", directory=None):
        self.directory = directory or SensorDirectory()
        self.tags = TagTable(plans, self.directory)
        self.tags.begin()
        self.filing = Filing("x", self.tags, self.directory, time)

    def file(self, *values, arrival_ns=NOW_NS + 5):
        """Values as (tag, value, kind, seconds after NOW or None[, status])."""
        found = [
            ua.DataValue(
                ua.Variant(value, T[kind]), ua.StatusCode(status[0] if status else 0),
                None if s is None else NOW + timedelta(seconds=s), None,
            )
            for _, value, kind, s, *status in values
        ]  # fmt: skip
        answer = from_data_values(found)
        answer.columns.tag[:] = [tag for tag, *_ in values]
        out = self.filing.file(answer, arrival_ns)
        for batch in out.batches:
            batch.check_columns()
        return out


class FeedDesk:
    """A feed of some devices into a sink that keeps all; rejects wait in its inbox."""

    def __init__(self, *plans, clock=None):
        self.sink = RecordingSink(clock)
        self.tags = TagTable(plans, self.sink.directory)
        self.tags.begin()
        filing = Filing("x", self.tags, self.sink.directory, "auto")
        inbox = ValueInbox("x", self.sink, self.tags, filing)
        self.heard, self.dropped = [], []
        self.feed = Feed(
            self.sink, self.tags, filing, inbox, AnswerTap(mark_of(self.tags), self.heard.append)
        )

    @property
    def waiting(self):
        return self.feed.inbox._gathered


class ScriptedConnection(UaConnection):
    """Answers by the request's type: a response, bytes, or an error to raise; the last answer again and again."""

    def __init__(self, **answers):
        self._namespaces = ["http://opcfoundation.org/UA/", "urn:x", "urn:y"]
        self._answers = {kind: list(some) for kind, some in answers.items()}
        self.asked = []
        self._access = SimpleNamespace(server=ServerAddress("h", 1))
        self.cpu_ns = self.n_bytes = 0
        self.is_resumed = False

    is_cut = False

    async def request(self, request, what, deadline_s=None):
        kind = type(request).__name__.removesuffix("Request")
        self.asked.append(request)
        some = self._answers[kind]
        answer = some.pop(0) if len(some) > 1 else some[0]
        if callable(answer):
            answer = await answer()
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, bytes) else bytes(struct_to_binary(answer))

    async def open(self):
        pass

    async def close(self, says_goodbye=True):
        pass


def read_response(*values, code=0):
    response = ua.ReadResponse()
    response.ResponseHeader.ServiceResult = ua.StatusCode(code)
    response.Results = [v if isinstance(v, ua.DataValue) else ua.DataValue(ua.Variant(v)) for v in values]
    return response


def publish_response(sequence, *values, subscription=7, code=0, n_parts=1):
    response = ua.PublishResponse()
    response.ResponseHeader.ServiceResult = ua.StatusCode(code)
    response.Parameters.SubscriptionId = subscription
    message = response.Parameters.NotificationMessage
    message.SequenceNumber = sequence
    if values:
        items = [ua.MonitoredItemNotification(i, ua.DataValue(ua.Variant(v))) for i, v in enumerate(values)]
        message.NotificationData = [ua.DataChangeNotification(MonitoredItems=items)] * n_parts
    return response
