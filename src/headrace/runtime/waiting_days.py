"""What a run of compaction will do to days whose samples are still hot: compact them, then what the rules want of them.

Only what is certain beforehand is said: days, samples, bytes as they are. What hot samples become is not tried, since they have
no chunks of single sensors yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.core.errors import CorruptionError, NotFound
from headrace.core.paths import format_duration
from headrace.runtime.phrases import count
from headrace.runtime.times import rfc3339
from headrace.store.ageing import sources_of
from headrace.store.commits import SegmentInfo
from headrace.store.compactor import CompactionPolicy
from headrace.store.due_days import DueDays
from headrace.store.grouping import DAY_NS
from headrace.store.holdings import Holdings, HotKey
from headrace.store.manifests import HOT_FOLDER
from headrace.store.tiers import STAGE_KEYS, Step, TierRules, TierStage
from headrace.store.view import StoreView

STAGE_WORDS = {TierStage.COLD: "cold", TierStage.ROLLUPS: "only rollups", TierStage.DELETED: "deleted"}


@dataclass(frozen=True)
class WaitingDays:
    """Days that a run compacts before anything ages.

    Parameters
    ----------
    view : the store once they are compacted, as far as `headrace.store.tiers.plan` looks at it. segments : that are hot, of
    each day. samples : by day, as they were flushed: a sample that was sent twice counts twice. size_bytes : of the
    hot segments by day. problems : a sentence for each segment that can't be read.
    """

    view: StoreView
    segments: dict[int, list[SegmentInfo]]
    samples: dict[int, dict[HotKey, float]] = field(default_factory=dict)
    size_bytes: dict[int, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls, view: StoreView, holdings: Holdings, rules: TierRules, policy: CompactionPolicy, now_ns: int
    ) -> WaitingDays:
        """Find and count them; reads headers of their hot segments, where `holdings` has not done so."""
        if view.commits.damaged:  # a run does nothing then
            return cls(view, {})
        due_days = DueDays(rules, policy, now_ns)
        due = due_days.of(view)
        out = cls(due_days.foretold(view, due), due)
        days: dict[SegmentInfo, set[int]] = {}
        for day, hot in due.items():
            for info in hot:
                days.setdefault(info, set()).add(day)
        for info, wanted in days.items():
            try:
                found = holdings.hot_days(info)
            except (CorruptionError, NotFound) as e:
                out.problems.append(str(e))
                continue
            out._count(info, {key: n for key, n in found.items() if key.day in wanted})
        return out

    def _count(self, info: SegmentInfo, found: dict[HotKey, float]) -> None:
        """Add what a segment has of days that wait."""
        for key, n in found.items():
            of_day = self.samples.setdefault(key.day, {})
            of_day[key] = of_day.get(key, 0.0) + n
            share = info.size_bytes * n / max(1, info.n_samples)
            self.size_bytes[key.day] = self.size_bytes.get(key.day, 0.0) + share

    def _n_samples(self, days: Iterable[int]) -> int:
        return round(sum(sum(self.samples.get(day, {}).values()) for day in days))

    def among(self, step: Step) -> frozenset[int]:
        """Those of them that a step is about."""
        days = step.late_days if step.is_cold else (step.key,)
        return frozenset(day for day in days if day in self.segments)

    def facts(self, steps: Sequence[Step], rules: TierRules, now_ns: int) -> dict[str, Any]:
        """How many days, samples and bytes; and what `steps`, which come after, do to them. JSON-ready."""
        days = sorted(self.segments)
        names = {info.name: info.size_bytes for hot in self.segments.values() for info in hot}
        return {
            "days": len(days),
            "from": rfc3339(days[0] * DAY_NS) if days else None,
            "to": rfc3339((days[-1] + 1) * DAY_NS) if days else None,
            "samples": self._n_samples(days),
            "bytes": sum(names.values()),
            "then": self._then(steps, rules, now_ns),
            "problems": self.problems,
        }

    def _then(self, steps: Sequence[Step], rules: TierRules, now_ns: int) -> list[dict[str, Any]]:
        found: dict[tuple[str, TierStage], dict[int, float]] = {}
        for step in steps:
            age_ns = now_ns - step.end_ns
            left_as_is = TierStage.WARM if step.is_cold else TierStage.COLD  # a day never gets cold by itself
            for key, n in (one for day in self.among(step) for one in self.samples.get(day, {}).items()):
                stage = rules.fate_of(key.rule or None, key.holds, age_ns, now_ns, step.early).stage
                if stage > left_as_is:
                    days = found.setdefault((key.rule, stage), {})
                    days[key.day] = days.get(key.day, 0.0) + n
        return [self._entry(rules, *key, found[key]) for key in sorted(found)]

    def _entry(self, rules: TierRules, rule: str, stage: TierStage, days: dict[int, float]) -> dict[str, Any]:
        n, samples = len(days), round(sum(days.values()))
        does = {
            TierStage.COLD: f"{n:,} get cold then, with {count(samples)} samples",
            TierStage.ROLLUPS: f"{n:,} lose their {count(samples)} samples then, where rollups stand for them",
            TierStage.DELETED: f"{n:,} lose their {count(samples)} samples then",
        }[stage]
        age_ns = getattr(rules.sections[rule].after, STAGE_KEYS[stage])
        by_size = "" if rules.sections[rule].size is None else ", or its size asks for it"
        says = f"{rule}: of the {len(self.segments):,} days that are compacted first, {does}: older than {format_duration(age_ns)}"
        return {
            "rule": rule, "stage": STAGE_WORDS[stage], "days": n, "samples": samples, "says": says + by_size,
        }  # fmt: skip

    def partition(self, step: Step) -> dict[str, Any]:
        """What a step's partition has, files and hot samples; JSON-ready. What it would save is not known."""
        among = self.among(step)
        files = [info for info in sources_of(self.view, step) if not info.name.startswith(HOT_FOLDER)]
        hot_bytes = sum(self.size_bytes.get(day, 0.0) for day in among)
        return {
            "days_to_compact": len(among),
            "samples": self._n_samples(among) + sum(info.n_samples for info in files),
            "bytes": round(hot_bytes) + sum(info.size_bytes for info in files),
        }
