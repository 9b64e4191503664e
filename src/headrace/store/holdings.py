"""What each rule of the tiers has in the store: samples, bytes and error, by partition."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from headrace.core.errors import CorruptionError, NotFound
from headrace.store.commits import SegmentInfo
from headrace.store.grouping import DAY_NS
from headrace.store.manifests import BUCKET_DAYS, COLD_FOLDER
from headrace.store.query import Store
from headrace.store.tiers import Holding, TierRules, TierStage, over_size
from headrace.store.view import StoreView

_ERRORS = ("bound", "max_error", "rmse")
_FILES_MAX = 20_000


class HotKey(NamedTuple):
    """Samples of one day whose sensors obey the same rule, "" for none, and are under the same holds."""

    day: int
    rule: str
    holds: tuple[str, ...]


class Holdings:
    """Counts a store by rule; what a file holds is read once, as files never change.

    Cost: headers of every file the first time, about 1 us a row; then nothing for files that are known.
    """

    def __init__(self, store: Store, rules: TierRules) -> None:
        self._store, self._rules = store, rules
        self._known: dict[str, list[Holding]] = {}
        self._known_hot: dict[str, dict[HotKey, float]] = {}
        self._columns: dict[int, dict[tuple[str, tuple[str, ...]], int]] = {}
        self._n_slots, self._slot_of = 0, dict[int, int]()

    def of(self, view: StoreView) -> list[Holding]:
        """By rule, tier and partition; sensors without a rule have "". Segments that can't be read are passed over."""
        found: dict[tuple[str, str, int | None], Holding] = {}
        for tier, infos in view.segments.items():
            for info in infos:
                for one in self._of_file(tier, info):
                    key = one.rule, one.tier, one.key
                    before = found.get(key)
                    found[key] = one if before is None else _sum(before, one)
        names = {s.name for infos in view.segments.values() for s in infos}
        if len(self._known) > _FILES_MAX:
            self._known = {name: one for name, one in self._known.items() if name in names}
            self._known_hot = {name: one for name, one in self._known_hot.items() if name in names}
        return sorted(found.values(), key=lambda one: (one.rule, one.tier, one.key or 0))

    def early(self, view: StoreView, now_ns: int) -> dict[tuple[bool, int], dict[str, TierStage]]:
        """Stages that the sizes of rules ask for; see `headrace.store.tiers.over_size`."""
        if not any(self._rules.sections[name].size for name in self._rules.governing):
            return {}
        found = self.of(view)
        ratios = {name: cold_ratio(found, name) for name in self._rules.governing}
        return over_size(found, self._rules, now_ns, ratios)

    def _of_file(self, tier: str, info: SegmentInfo) -> list[Holding]:
        if info.name not in self._known:
            try:
                read = self._hot if tier == "hot" else self._rows
                self._known[info.name] = list(read(info))
            except (CorruptionError, NotFound):
                return []
        return self._known[info.name]

    def _rule(self, path: str) -> str:
        return self._rules.obeyed(path)[0] or ""

    def _rows(self, info: SegmentInfo) -> Iterable[Holding]:
        """Of a file of single sensors: payloads, and their share of the rest."""
        file = self._store.reader.open(info)
        names = ["path", "n_samples", "n_bytes", *(n for n in _ERRORS if n in file.names)]
        sums: dict[str, Any] = {}
        payloads = 0
        for group in range(file.n_groups):
            table = file.row_group(group, names)
            if table is None:
                raise file.damaged("it has no headers of single sensors")
            coded = table["path"].combine_chunks().dictionary_encode()
            rules = np.array([self._rule(p) for p in coded.dictionary.to_pylist()], np.object_)[
                coded.indices.to_numpy()
            ]
            columns = {n: np.asarray(table[n].to_numpy(), np.float64) for n in names[1:]}
            bound = columns["bound"]
            errors = [
                np.where(np.isnan(e), bound, e)
                for e in (columns.get("max_error", bound), columns.get("rmse", bound))
            ]
            payloads += int(columns["n_bytes"].sum())
            for rule in sorted(set(rules.tolist())):
                mine = rules == rule
                before = sums.get(rule, (0, 0, 0.0, 0.0))
                sums[rule] = (
                    before[0] + int(columns["n_samples"][mine].sum()), before[1] + int(columns["n_bytes"][mine].sum()),
                    max(before[2], float(errors[0][mine].max())), max(before[3], float(errors[1][mine].max())),
                )  # fmt: skip
        is_cold = info.name.startswith(COLD_FOLDER)
        key = info.t_min_ns // DAY_NS // (BUCKET_DAYS if is_cold else 1)
        for rule, (n, size, largest, rmse) in sums.items():
            share = round(info.size_bytes * size / max(1, payloads))
            yield Holding(rule, "cold" if is_cold else "warm", key, n, share, largest, rmse)

    def hot_days(self, info: SegmentInfo) -> dict[HotKey, float]:
        """Samples of a hot segment, whose rows are groups: each column has the same share of its group's row.

        Raises
        ------
        CorruptionError, NotFound : the segment is damaged or gone.
        """
        if info.name in self._known_hot:
            return self._known_hot[info.name]
        slots = self._slots()
        sums: dict[HotKey, float] = {}
        for rows in self._store.reader.all_headers(info):
            days = (rows.t_min // DAY_NS).tolist()  # a hot row never goes over midnight
            for day, group, n in zip(days, rows.group.tolist(), rows.n_samples.tolist(), strict=True):
                if group not in slots:
                    continue
                obeyed = self._obeyed(slots[group])
                for of, n_columns in obeyed.items():
                    key = HotKey(day, *of)
                    sums[key] = sums.get(key, 0.0) + n * n_columns / sum(obeyed.values())
        self._known_hot[info.name] = sums
        return sums

    def _hot(self, info: SegmentInfo) -> Iterable[Holding]:
        """Of a hot segment."""
        sums: dict[str, float] = {}
        for key, n in self.hot_days(info).items():
            sums[key.rule] = sums.get(key.rule, 0.0) + n
        for rule, samples in sums.items():
            yield Holding(
                rule, "hot", None, round(samples), round(info.size_bytes * samples / max(1, info.n_samples))
            )

    def _slots(self) -> dict[int, int]:
        """Newest slot of each group."""
        group_id = self._store.directory.group_id
        if self._n_slots != len(group_id):
            self._n_slots = len(group_id)
            self._slot_of = {int(g): s for s, g in enumerate(group_id.tolist())}
        return self._slot_of

    def _obeyed(self, slot: int) -> dict[tuple[str, tuple[str, ...]], int]:
        """How many columns of a slot obey each rule, under which holds."""
        if slot not in self._columns:
            directory = self._store.directory
            found: dict[tuple[str, tuple[str, ...]], int] = {}
            for column in range(int(directory.width[slot])):
                rule, holds = self._rules.obeyed(directory.sensor_path(slot, column))
                found[rule or "", holds] = found.get((rule or "", holds), 0) + 1
            self._columns[slot] = found
        return self._columns[slot]


def cold_ratio(holdings: Iterable[Holding], rule: str) -> float:
    """How much smaller a rule's samples are in the cold tier than in the warm one; 1 where nobody knows yet."""
    each = {}
    for tier in ("warm", "cold"):
        mine = [one for one in holdings if one.rule == rule and one.tier == tier]
        n = sum(one.n_samples for one in mine)
        each[tier] = sum(one.size_bytes for one in mine) / n if n else 0.0
    return each["warm"] / each["cold"] if each["cold"] and each["warm"] else 1.0


def _sum(one: Holding, other: Holding) -> Holding:
    return replace(
        one, n_samples=one.n_samples + other.n_samples, size_bytes=one.size_bytes + other.size_bytes,
        max_error=max(one.max_error, other.max_error), rmse=max(one.rmse, other.rmse),
    )  # fmt: skip
