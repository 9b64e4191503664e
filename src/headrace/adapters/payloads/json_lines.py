"""JSON that names its sensors: an object a line, or a list of objects.

* ``{"path": "leon/paint/line1/oven1/temperature", "ts": 1795446000.5, "value": 181.2}`` is one sample of one sensor;
* ``{"device": "leon/paint/line1/oven1", "ts": ..., "temperature": 181.2, "running": true}`` is one instant of a device:
  all its other members are values, nested ones by keys with dots.

``ts`` is a number since 1970 or RFC 3339 text; without it a sample has the time of its arrival.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.adapters.payloads.base import Decoded, PayloadError, RuleSettings, TopicMessage
from headrace.adapters.payloads.json import FieldsDecoder
from headrace.adapters.payloads.keys import DeviceGroup, DeviceGroups
from headrace.adapters.payloads.rows import N_REFUSED_MAX, Rows
from headrace.adapters.payloads.times import TimeReader
from headrace.core.clock import NO_TIME
from headrace.core.events import RejectCode

PATH, DEVICE, TIME, VALUE = "path", "device", "ts", "value"
DOCUMENT_BYTES_MAX = 1_000_000
_SAMPLE = {PATH, TIME, VALUE}


class JsonLinesDecoder:
    """Decodes JSON documents of one adapter instance.

    Parameters
    ----------
    origin : the adapter's name. levels : names of a path's levels (empty: any number).
    settings : types, units and bounds of devices.

    Cost: about 2 us of CPU a line, and 0.2 us a value.
    """

    def __init__(
        self, origin: str, groups: DeviceGroups, levels: tuple[str, ...], settings: RuleSettings
    ) -> None:
        self._origin = origin
        self._groups = groups
        self._levels = levels
        self._settings = settings.model_copy(update={"time": TIME})
        self._rows = Rows(origin, groups)
        self._decode = msgspec.json.Decoder().decode

    def decode(
        self, documents: Sequence[bytes], times: TimeReader, arrival_ns: int, first_number: int = 1
    ) -> Decoded:
        """Columns of all documents that are not blank, and rejects; every value is in one or the other.

        Parameters
        ----------
        first_number : of the first document's line: rejects come from ``line 7``.
        arrival_ns : of line 1; each line is a nanosecond later than the one before, so that a document which is
        decoded `again` gets the times it had.
        """
        fields = FieldsDecoder(self._settings, times)
        before_ns = arrival_ns - 1
        for number, document in enumerate(documents, first_number):
            if not document or document.isspace():
                continue
            message = TopicMessage(f"line {number}", document, before_ns + number)
            try:
                self._read(message, fields, times)
            except PayloadError as e:
                self._rows.refuse(message, e.code, e.detail, e.n_samples)
        return self._rows.build(arrival_ns)

    def again(self, document: bytes, times: TimeReader, arrival_ns: int) -> Decoded:
        """Decode a document of the past; values without a time get that of its arrival then."""
        return self.dated([document], times, arrival_ns)

    def dated(
        self, documents: Sequence[bytes], times: TimeReader, arrival_ns: int, first_number: int = 1
    ) -> Decoded:
        """The same as `decode`, where values without a time get that of this arrival, whatever their devices sent since."""
        past = _PastDecoder(self._origin, self._groups, self._levels, self._settings)
        try:
            return past.decode(documents, times, arrival_ns, first_number)
        finally:
            past.restore()

    def _read(self, message: TopicMessage, fields: FieldsDecoder, times: TimeReader) -> None:
        if len(message.payload) > DOCUMENT_BYTES_MAX:
            detail = f"{len(message.payload):,} bytes, expected at most {DOCUMENT_BYTES_MAX:,}; send an object a line"
            raise PayloadError(RejectCode.TOO_LARGE, detail)
        try:
            top: Any = self._decode(message.payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            raise PayloadError(RejectCode.MALFORMED, f"not JSON: {e}") from None
        items = top if type(top) is list else [top]
        n_refused = 0
        for number, item in enumerate(items):
            try:
                self._add(item, message, fields, times)
            except PayloadError as e:
                n_refused += 1
                if n_refused > N_REFUSED_MAX:
                    detail = f"more than {N_REFUSED_MAX:,} mistakes; what follows was not read; {e.detail}"
                    raise PayloadError(e.code, detail, len(items) - number) from None
                self._rows.refuse(message, e.code, e.detail, e.n_samples)

    def _add(self, item: Any, message: TopicMessage, fields: FieldsDecoder, times: TimeReader) -> None:
        """Add one object. Raises PayloadError."""
        if type(item) is not dict:
            raise PayloadError(RejectCode.MALFORMED, f"expected an object, got {item!r:.60}")
        n_samples = max(1, len(item.keys() - {DEVICE, PATH, TIME}))
        device = item.pop(DEVICE, None)
        if type(device) is str:
            group = self._group(device, n_samples)
            fields.add(item, message, group, self._rows)
        elif type(item.get(PATH)) is str and item.keys() <= _SAMPLE and VALUE in item:
            self._add_sample(item, message, times)
        else:
            detail = 'expected {"path", "ts", "value"} or {"device", "ts", ...}, got members '
            raise PayloadError(RejectCode.MALFORMED, detail + f"{', '.join(item)!s:.80}", n_samples)

    def _add_sample(self, item: dict[str, Any], message: TopicMessage, times: TimeReader) -> None:
        path, _, name = item[PATH].rpartition("/")
        if not name:
            raise PayloadError(RejectCode.BAD_PATH, f"path {item[PATH]!r:.80} ends in an empty level")
        group = self._group(path, 1)
        ts_ns = NO_TIME if item.get(TIME) is None else times.read(item[TIME])
        self._rows.add(message, group, ts_ns, ((name,), (item[VALUE],)), self._settings)

    def _group(self, path: str, n_samples: int) -> DeviceGroup:
        """The device at `path`. Raises PayloadError."""
        n_levels = path.count("/") + 2
        if self._levels and n_levels != len(self._levels):
            detail = f"{path!r:.80} and a name are {n_levels} levels, expected {'/'.join(self._levels)}"
            raise PayloadError(RejectCode.BAD_PATH, detail, n_samples)
        try:
            return self._groups.group(path, self._settings)
        except PayloadError as e:
            raise PayloadError(e.code, e.detail, n_samples) from None


class _PastDecoder(JsonLinesDecoder):
    """Takes what a device sent since for not sent: or a document of the past would get a later time than it had."""

    def __init__(
        self, origin: str, groups: DeviceGroups, levels: tuple[str, ...], settings: RuleSettings
    ) -> None:
        super().__init__(origin, groups, levels, settings)
        self._newest_ns: dict[DeviceGroup, int] = {}

    def _group(self, path: str, n_samples: int) -> DeviceGroup:
        group = super()._group(path, n_samples)
        if group not in self._newest_ns:
            self._newest_ns[group], group.last_arrival_ns = group.last_arrival_ns, 0
        return group

    def restore(self) -> None:
        """Give the devices back what they have sent since."""
        for group, newest_ns in self._newest_ns.items():
            group.last_arrival_ns = newest_ns
