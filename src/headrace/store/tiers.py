"""Tiers: what the rules want of samples as they age, and what of that is due. Pure: it looks at a view, and decides.

hot → warm → cold → rollups only → deleted. The hot tier becomes warm by days (`headrace.store.compactor`). A *bucket* of
30 days becomes cold when all of it is old enough by some rule; the rows of sensors whose rules want nothing of it go
along as they are. What is due of a partition is one text, its *due*, which its manifest keeps once it is done: nothing
is read to find out that nothing is to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from functools import cached_property

import numpy as np

from headrace.core.clock import NS
from headrace.core.paths import format_duration, parse_duration_ns, pattern_regex
from headrace.core.specificity import specificity
from headrace.core.tier_settings import TierBound, TierSection
from headrace.store.grouping import DAY_NS
from headrace.store.manifests import BUCKET_DAYS
from headrace.store.view import StoreView

BUCKET_NS = BUCKET_DAYS * DAY_NS
LATE_NS = DAY_NS
"""How long late data of a cold bucket gather before they go into it."""

_KNOWN_MAX = 500_000


class TierStage(IntEnum):
    """What samples are, in the order in which they age."""

    WARM = 0
    COLD = 1
    ROLLUPS = 2
    DELETED = 3


STAGE_KEYS = {TierStage.COLD: "cold", TierStage.ROLLUPS: "rollups", TierStage.DELETED: "delete"}


@dataclass(frozen=True, slots=True)
class TierFate:
    """What becomes of a sensor's samples in a partition: the same for all sensors of one rule.

    ``bound`` None: lossless. ``rule`` is "" where no rule governs.
    """

    rule: str
    stage: TierStage
    bound: TierBound | None
    cold_block: int
    is_held: bool

    @property
    def text(self) -> str:
        """Short, and different where the fate is."""
        held = ", held" if self.is_held else ""
        if self.stage is not TierStage.COLD:
            return f"{self.rule}: {self.stage.name.lower()}{held}"
        return f"{self.rule}: cold, {self.bound.text if self.bound else 'lossless'}, {self.cold_block}{held}"


@dataclass(frozen=True, slots=True)
class Governance:
    """Which rules say what of a sensor: that which governs (None for none), those that match but don't, the holds."""

    rule: str | None
    outranked: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()


class TierRules:
    """The ``[tiers]`` of a plant file.

    Parameters
    ----------
    sections : by name, checked (`headrace.core.tier_settings.tier_problems`).

    Examples
    --------
    >>> from headrace.core.tier_settings import TierSection
    >>> rules = TierRules({"all": TierSection(match="**"), "press": TierSection(match="**/press/*")})
    >>> rules.governance("leon/line1/press/force").rule
    'press'
    """

    def __init__(self, sections: Mapping[str, TierSection]) -> None:
        self.sections = dict(sections)
        names = sorted(sections, key=lambda name: specificity(sections[name].match), reverse=True)
        self._regexes = {name: pattern_regex(sections[name].match) for name in names}
        self.governing = [name for name in names if sections[name].governs]
        self.holding = [name for name in names if sections[name].held_until_ns]
        self._known: dict[str, tuple[str | None, tuple[str, ...]]] = {}

    def __bool__(self) -> bool:
        return bool(self.sections)

    def governance(self, path: str) -> Governance:
        """What rules say of a sensor."""
        matching = [name for name in self.governing if self._regexes[name].fullmatch(path)]
        holds = tuple(name for name in self.holding if self._regexes[name].fullmatch(path))
        return Governance(matching[0] if matching else None, tuple(matching[1:]), holds)

    def fate(self, path: str, age_ns: int, now_ns: int, early: Mapping[str, TierStage]) -> TierFate:
        """What becomes of a sensor's samples that are all at least so old; `early`: stages a size asks for, by rule."""
        rule, holds = self.obeyed(path)
        return self.fate_of(rule, holds, age_ns, now_ns, early)

    def obeyed(self, path: str) -> tuple[str | None, tuple[str, ...]]:
        """The rule that governs a sensor, None for none, and the holds on it."""
        known = self._known.get(path)
        if known is None:
            if len(self._known) > _KNOWN_MAX:
                self._known.clear()
            found = self.governance(path)
            known = self._known[path] = (found.rule, found.holds)
        return known

    def fate_of(
        self,
        rule: str | None,
        holds: Iterable[str],
        age_ns: int,
        now_ns: int,
        early: Mapping[str, TierStage],
    ) -> TierFate:
        """`fate` of the sensors that obey a rule and are under some holds."""
        return self._fate(rule, self._is_held(holds, now_ns), age_ns, early)

    def _fate(self, rule: str | None, held: bool, age_ns: int, early: Mapping[str, TierStage]) -> TierFate:
        if rule is None:
            return TierFate("", TierStage.WARM, None, 0, held)
        section = self.sections[rule]
        stage = max(self.stage(rule, age_ns), early.get(rule, TierStage.WARM))
        if held:
            stage = min(stage, TierStage.COLD if section.after.cold is not None else TierStage.WARM)
        return TierFate(rule, stage, None if held else section.bound, section.cold_block, held)

    def _is_held(self, holds: Iterable[str], now_ns: int) -> bool:
        return any(now_ns < self.sections[name].held_until_ns for name in holds)

    def stage(self, rule: str, age_ns: int) -> TierStage:
        """What a rule wants of samples of an age."""
        after = self.sections[rule].after
        reached = [
            s for s, key in STAGE_KEYS.items() if (age := getattr(after, key)) is not None and age_ns >= age
        ]
        return max(reached, default=TierStage.WARM)

    def finest_rollup_ns(self, path: str) -> int:
        """The shortest windows that the rule of a sensor wants kept once its samples go, ns; 0 where they stay."""
        rule = self.governance(path).rule
        if rule is None or self.sections[rule].after.rollups is None:
            return 0
        return min(parse_duration_ns(one) for one in self.sections[rule].rollups)

    def next_stage(self, rule: str, stage: TierStage) -> TierStage | None:
        """What comes after a stage."""
        after = self.sections[rule].after
        later = [s for s, key in STAGE_KEYS.items() if s > stage and getattr(after, key) is not None]
        return min(later, default=None)

    def due(self, end_ns: int, now_ns: int, early: Mapping[str, TierStage], *, is_day: bool) -> str:
        """What the rules want of a partition that ends at `end_ns`; "" for nothing. A day never gets cold by itself."""
        fates = [self._fate(rule, False, now_ns - end_ns, early) for rule in self.governing]
        wanted = [one for one in fates if one.stage > (TierStage.COLD if is_day else TierStage.WARM)]
        if not wanted:
            return ""
        holds = [name for name in self.holding if now_ns < self.sections[name].held_until_ns]
        return "; ".join([*(one.text for one in wanted), *(f"hold {name}" for name in holds)])

    @cached_property
    def warm_after_ns(self) -> int | None:
        """The shortest age at which samples get warm; None where no rule says one."""
        ages = [self.sections[n].after.warm for n in self.governing]
        return min((age for age in ages if age is not None), default=None)


@dataclass(frozen=True, slots=True)
class Step:
    """Something that is due: a partition to write anew.

    Parameters
    ----------
    key : a day, or a bucket of days where `is_cold`. due : what the rules want of it. early : stages that a size asks for.
    late_days : days of a bucket that have data of their own again.
    """

    key: int
    is_cold: bool
    due: str
    early: Mapping[str, TierStage] = field(default_factory=dict)
    late_days: tuple[int, ...] = ()

    @property
    def start_ns(self) -> int:
        """First moment of the partition."""
        return self.key * (BUCKET_NS if self.is_cold else DAY_NS)

    @property
    def end_ns(self) -> int:
        """End of the partition."""
        return (self.key + 1) * (BUCKET_NS if self.is_cold else DAY_NS)

    @property
    def name(self) -> str:
        """The partition, in words."""
        first = np.datetime64(self.start_ns // DAY_NS, "D")
        return f"{BUCKET_DAYS} days from {first}" if self.is_cold else f"day {first}"

    @property
    def reason(self) -> str:
        """Why, in words."""
        late = f"{len(self.late_days)} days with late data" if self.late_days and self.is_cold else ""
        return "; ".join(one for one in (self.due, late) if one)


@dataclass(frozen=True, slots=True)
class Holding:
    """What one rule has in one partition (key as in `Step`), or in the hot tier (key None).

    ``max_error`` and ``rmse`` are the largest of the rows'.
    """

    rule: str
    tier: str
    key: int | None
    n_samples: int
    size_bytes: int
    max_error: float = 0.0
    rmse: float = 0.0


def plan(
    view: StoreView,
    rules: TierRules,
    now_ns: int,
    early: Mapping[tuple[bool, int], Mapping[str, TierStage]] | None = None,
) -> list[Step]:
    """What is due, oldest first.

    Parameters
    ----------
    early : stages that sizes ask for, by (is cold, key); see `over_size`.
    """
    early = early or {}
    steps: list[Step] = []
    in_buckets: set[int] = set()
    for bucket in sorted({day // BUCKET_DAYS for day in view.manifests}):
        step = _bucket_step(view, rules, bucket, now_ns, early.get((True, bucket), {}))
        known = view.cold.get(bucket)
        if step is not None:
            steps.append(step)
        if step is not None or known is not None:
            in_buckets.add(bucket)
    for day, manifest in view.manifests.items():
        if day // BUCKET_DAYS in in_buckets or not (manifest.files or manifest.n_dropped):
            continue
        if not manifest.is_whole:
            continue
        asked = early.get((False, day), {})
        due = rules.due((day + 1) * DAY_NS, now_ns, asked, is_day=True)
        if due and due != manifest.aged:
            steps.append(Step(day, False, due, asked))
    return sorted(steps, key=lambda step: (step.end_ns, step.is_cold))


def _bucket_step(
    view: StoreView, rules: TierRules, bucket: int, now_ns: int, early: Mapping[str, TierStage]
) -> Step | None:
    end_ns = (bucket + 1) * BUCKET_NS
    if now_ns < end_ns:
        return None
    known = view.cold.get(bucket)
    due = rules.due(end_ns, now_ns, early, is_day=False)
    days = [
        view.manifests[d]
        for d in range(bucket * BUCKET_DAYS, (bucket + 1) * BUCKET_DAYS)
        if d in view.manifests
    ]
    if known is None:
        wanted = due and any(m.files for m in days) and all(m.is_whole for m in days)
        return Step(bucket, True, due, early, tuple(m.day for m in days)) if wanted else None
    late = [m for m in days if m.files and now_ns >= m.published_ns + LATE_NS]
    if due != known.aged or late:
        return Step(bucket, True, due, early, tuple(m.day for m in late))
    return None


def over_size(
    holdings: Iterable[Holding], rules: TierRules, now_ns: int, ratios: Mapping[str, float]
) -> dict[tuple[bool, int], dict[str, TierStage]]:
    """Which partitions must age early so that no rule has more bytes than its size: stages by (is cold, key), by rule.

    The mildest stage comes first, of that the oldest partition: all that can get cold gets cold before any samples are
    dropped. Only whole buckets get cold.

    Parameters
    ----------
    ratios : how much smaller the cold tier is than the warm one, by rule.
    """
    out: dict[tuple[bool, int], dict[str, TierStage]] = {}
    by_rule: dict[str, list[Holding]] = {}
    for one in holdings:
        by_rule.setdefault(one.rule, []).append(one)
    for rule, mine in by_rule.items():
        size = rules.sections[rule].size if rule in rules.sections else None
        total = sum(one.size_bytes for one in mine)
        if size is None or total <= size:
            continue
        left = _units(mine, now_ns)
        for stage in STAGE_KEYS:
            if getattr(rules.sections[rule].after, STAGE_KEYS[stage]) is None:
                continue
            for unit in sorted(left):
                if total <= size:
                    break
                is_cold, n_bytes = left[unit]
                bucket = unit // BUCKET_DAYS
                if stage is TierStage.COLD and (is_cold or now_ns < (bucket + 1) * BUCKET_NS):
                    continue
                keeps = 1.0 / max(ratios.get(rule, 1.0), 1.0) if stage is TierStage.COLD else 0.0
                key = (True, bucket) if is_cold or stage is TierStage.COLD else (False, unit)
                out.setdefault(key, {})[rule] = stage
                total -= round(n_bytes * (1.0 - keeps))
                left[unit] = (is_cold, round(n_bytes * keeps))
    return out


def _units(mine: list[Holding], now_ns: int) -> dict[int, tuple[bool, int]]:
    """Bytes that can age: by day of the warm tier or first day of a cold bucket, and whether it is that."""
    out: dict[int, tuple[bool, int]] = {}
    for one in mine:
        if one.key is None or not one.size_bytes:
            continue
        is_cold = one.tier == "cold"
        unit = one.key * BUCKET_DAYS if is_cold else one.key
        if is_cold or (unit + 1) * DAY_NS <= now_ns:
            out[unit] = (is_cold, out.get(unit, (is_cold, 0))[1] + one.size_bytes)
    return out


def _gives_up(section: TierSection) -> bool:
    """Whether a rule ever lets go of samples, so that its size holds in the end."""
    return section.after.rollups is not None or section.after.delete is not None


def describe(rules: TierRules, name: str) -> list[str]:
    """What a rule does, a sentence a stage."""
    section = rules.sections[name]
    after = section.after
    texts = []
    if after.warm is not None:
        texts.append(f"after {format_duration(after.warm)} warm: lossless chunks of single sensors")
    if after.cold is not None:
        bound = f"within {section.bound.text}" if section.bound else "lossless"
        texts.append(
            f"after {format_duration(after.cold)} cold: {bound}, up to {section.cold_block:,} samples a chunk"
        )
    if after.rollups is not None:
        texts.append(f"after {format_duration(after.rollups)} only rollups: {', '.join(section.rollups)}")
    if after.delete is not None:
        texts.append(f"after {format_duration(after.delete)} deleted")
    if section.size is not None:
        texts.append(f"above {section.size:,} bytes the oldest samples go that way early")
        if not _gives_up(section):
            texts.append("what is cold stays for any size: after has neither rollups nor delete")
    if section.held_until_ns >= 2**63 - 1:
        texts.append("held: nothing is deleted or made lossy")
    elif section.held_until_ns:
        until = datetime.fromtimestamp(section.held_until_ns / NS, UTC).date()
        texts.append(f"held until {until}: nothing is deleted or made lossy")
    return texts or ["nothing happens to these samples"]
