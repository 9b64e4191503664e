"""What the rules of the tiers have in a store, what is due, and what becomes of a sensor: JSON-ready."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.core.clock import NS, Clock
from headrace.core.errors import CorruptionError, NotFound
from headrace.core.faults import FaultPoints
from headrace.core.sensors import Selection
from headrace.runtime.times import rfc3339
from headrace.runtime.waiting_days import STAGE_WORDS, WaitingDays
from headrace.store.ageing import Ager
from headrace.store.compactor import CompactionPolicy
from headrace.store.holdings import Holdings, cold_ratio
from headrace.store.kept import kept_of
from headrace.store.pace import Pace
from headrace.store.partition_rows import never_lossy
from headrace.store.query import Store
from headrace.store.ranges import load_ranges
from headrace.store.tiers import STAGE_KEYS, Holding, Step, TierRules, describe, plan
from headrace.store.view import StoreView

RAW_BYTES = 16
"""A sample as a time and a float of 64 bits each: what ratios compare with."""

_SLICE_SAMPLES = 4_000_000
_TIERS = ("hot", "warm", "cold")


@dataclass(frozen=True)
class TiersView:
    """Looks at a store by the rules.

    Parameters
    ----------
    holdings : remembers what files hold, where it is asked again and again. policy : of the runs that it speaks of.
    """

    store: Store
    rules: TierRules
    clock: Clock
    holdings: Holdings
    policy: CompactionPolicy = field(default_factory=CompactionPolicy)

    @classmethod
    def of(cls, store: Store, rules: TierRules, clock: Clock) -> TiersView:
        """A view that is asked once."""
        return cls(store, rules, clock, Holdings(store, rules))

    def status(self, *, tries: bool = True) -> dict[str, Any]:
        """What each rule holds, and what a run would do: days to compact, then partitions that are due.

        `tries`: say what those would save, from trials of some rows. Partitions with days that are to be compacted have no trials.
        """
        view = self.store.refresh()
        found = self.holdings.of(view)
        now_ns = self.clock.now_ns()
        waiting = WaitingDays.of(view, self.holdings, self.rules, self.policy, now_ns)
        steps = plan(waiting.view, self.rules, now_ns, self.holdings.early(view, now_ns))
        names = [*self.rules.sections, *sorted({h.rule for h in found} - self.rules.sections.keys())]
        return {
            "rules": [self._rule(name, found) for name in names],
            "compaction": waiting.facts(steps, self.rules, now_ns),
            "due": [self._due(view, waiting, step, tries) for step in steps],
            "damaged": list(view.damaged),
        }

    def _rule(self, name: str, found: Sequence[Holding]) -> dict[str, Any]:
        mine = [one for one in found if one.rule == name]
        section = self.rules.sections.get(name)
        n, size = sum(one.n_samples for one in mine), sum(one.size_bytes for one in mine)
        return {
            "name": name,
            "match": section.match if section else "",
            "says": describe(self.rules, name) if section else ["no rule matches: samples stay warm"],
            "samples": n,
            "bytes": size,
            "over_bytes": max(0, size - section.size) if section and section.size is not None else 0,
            "ratio": _ratio(n, size),
            "max_error": max((one.max_error for one in mine), default=0.0),
            "rmse": max((one.rmse for one in mine), default=0.0),
            "cold_to_warm": round(cold_ratio(found, name), 2),
            "tiers": {tier: _tier([one for one in mine if one.tier == tier]) for tier in _TIERS},
        }

    def _due(self, view: StoreView, waiting: WaitingDays, step: Step, tries: bool) -> dict[str, Any]:
        out: dict[str, Any] = {
            "partition": step.name, "from": rfc3339(step.start_ns), "to": rfc3339(step.end_ns), "reason": step.reason,
        }  # fmt: skip
        if waiting.among(step):
            return out | waiting.partition(step)
        if not tries:
            return out
        ager = Ager(
            self.store,
            self.clock,
            self.rules,
            faults=FaultPoints(),
            pace=Pace(),
            slice_samples=_SLICE_SAMPLES,
        )
        try:
            would = ager.estimate(view, step)
        except (CorruptionError, NotFound) as e:
            return out | {"problems": [str(e)]}
        return out | {
            "samples": would.n_samples, "recoded": would.n_recoded, "dropped": would.n_dropped,
            "bytes": would.bytes_before, "bytes_after": would.bytes_after, "saves": would.bytes_before - would.bytes_after,
            "max_error": would.max_error, "problems": would.problems + would.stays,
        }  # fmt: skip

    # --- explaining ----------------------------------------------------------------------------------

    def explain(self, pattern: str) -> list[dict[str, Any]]:
        """What becomes of the sensors that match: one entry for those with the same rules. Raises `NotFound`."""
        selection = self.store.select(pattern)
        directory = self.store.directory
        paths = directory.sensor_paths(selection.slot, selection.column).tolist()
        groups: dict[tuple[Any, ...], list[int]] = {}
        for i, path in enumerate(paths):
            said = self.rules.governance(path)
            column = directory.layout(int(selection.slot[i])).columns[int(selection.column[i])]
            why = never_lossy(directory.layout(int(selection.slot[i])).dtype[0] == "f", column)
            groups.setdefault((said.rule or "", said.outranked, said.holds, why), []).append(i)
        return [self._explained(key, selection, paths, mine) for key, mine in groups.items()]

    def _explained(
        self, key: tuple[Any, ...], selection: Selection, paths: list[str], mine: list[int]
    ) -> dict[str, Any]:
        rule, outranked, holds, why = key
        sections = self.rules.sections
        out: dict[str, Any] = {
            "sensors": len(mine), "examples": [paths[i] for i in mine[:3]], "rule": rule,
            "match": sections[rule].match if rule else "",
            "outranked": [{"name": n, "match": sections[n].match} for n in outranked],
            "holds": [{"name": n, "match": sections[n].match, "until": _until(sections[n].held_until_ns)} for n in holds],
            "says": describe(self.rules, rule) if rule else ["no rule matches: samples stay warm"],
            "lossless_because": why,
        }  # fmt: skip
        out["next"] = self._dates(rule) if rule else []
        bound = sections[rule].bound if rule else None
        if len(mine) == 1 and bound is not None and not why and not holds:
            known = load_ranges(self.store.disk).get(int(selection.sensor[mine[0]]))
            out["bound"] = bound.text
            if bound.range is not None:
                out["range"] = known[0] if known else None
                out["eps"] = known[0] * bound.range if known else None
            elif bound.absolute is not None:
                out["eps"] = bound.absolute
        if len(paths) == 1:
            out["kept"] = self._kept(paths[0])
        return out

    def _kept(self, path: str) -> dict[str, Any]:
        """How a sensor's samples are coded in each tier that has files of single sensors."""
        found = kept_of(self.store, self.store.refresh(), path)
        return {
            tier: {
                "samples": one.n_samples, "bytes": one.n_bytes, "ratio": _ratio(one.n_samples, one.n_bytes),
                "codecs": dict(one.codecs.most_common()), "predicted_from": dict(one.siblings.most_common()),
                "max_error": one.max_error, "rmse": one.rmse,
            }
            for tier, one in found.items()
        }  # fmt: skip

    def _dates(self, rule: str) -> list[dict[str, Any]]:
        """When a sample of this moment becomes what, at the earliest."""
        after = self.rules.sections[rule].after
        ages = [(stage, getattr(after, key)) for stage, key in STAGE_KEYS.items()]
        now_ns = self.clock.now_ns()
        return [
            {"stage": STAGE_WORDS[stage], "from": rfc3339(now_ns + age)}
            for stage, age in ages
            if age is not None
        ]


def _tier(mine: Sequence[Holding]) -> dict[str, Any]:
    n, size = sum(one.n_samples for one in mine), sum(one.size_bytes for one in mine)
    return {
        "samples": n,
        "bytes": size,
        "ratio": _ratio(n, size),
        "partitions": len({o.key for o in mine if o.key is not None}),
    }


def _ratio(n_samples: int, size_bytes: int) -> float:
    return round(n_samples * RAW_BYTES / size_bytes, 2) if size_bytes else 0.0


def _until(until_ns: int) -> str | None:
    return None if until_ns >= 2**63 - 1 else rfc3339(until_ns // NS * NS)
