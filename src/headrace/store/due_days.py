"""Which days wait for compaction, and what the store is once they are compacted. Pure: it looks at a view, and decides.

`headrace.store.compactor` asks it before it works, and `headrace.runtime.tiers_report` to say beforehand what a run will do.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from headrace.core.clock import NS
from headrace.store.commits import SegmentInfo
from headrace.store.grouping import DAY_NS
from headrace.store.manifests import Manifest
from headrace.store.tiers import TierRules
from headrace.store.view import StoreView

if TYPE_CHECKING:
    from headrace.store.compactor import CompactionPolicy


class DueDays:
    """Decides for one moment.

    Parameters
    ----------
    rules : of the tiers; they may say how old a day is that gets warm. policy : says the rest.
    """

    def __init__(self, rules: TierRules, policy: CompactionPolicy, now_ns: int) -> None:
        self._rules, self._policy, self._now_ns = rules, policy, now_ns

    def of(self, view: StoreView, force: bool = False) -> dict[int, list[SegmentInfo]]:
        """Days that are due, oldest first (all with hot rows, where forced), and the hot segments of each."""
        hot_by_day = _hot_by_day(view)
        for day, manifest in view.manifests.items():
            if not manifest.is_whole and self.is_over(day):
                hot_by_day.setdefault(day, [])
        return {day: hot for day, hot in sorted(hot_by_day.items()) if force or self._is_due(view, day, hot)}

    def _is_due(self, view: StoreView, day: int, hot: list[SegmentInfo]) -> bool:
        if len(hot) >= self._policy.n_hot_max:
            return True
        manifest = view.manifests.get(day)
        if manifest is None or not manifest.is_whole or not self.is_over(day):
            return self.is_over(day)
        return self._now_ns >= manifest.published_ns + self._policy.late_every_s * NS

    def is_over(self, day: int) -> bool:
        """Whether a day has ended so long ago that all of it gets warm."""
        asked_ns = self._rules.warm_after_ns
        min_age_ns = int(self._policy.min_age_s * NS) if asked_ns is None else asked_ns
        return self._now_ns >= (day + 1) * DAY_NS + min_age_ns

    def adds(self, before: Manifest, hot: list[SegmentInfo]) -> bool:
        """Whether a day's hot rows get files of their own beside the ones that are there.

        So they do while the day lasts, and where little comes late to a day that was merged.
        """
        if (
            not self.is_over(before.day) or before.alone
        ):  # rollups of samples that are gone can't be made anew
            return True
        n_before = sum(f.n_samples for f in before.files)
        n_new = sum(f.n_samples for f in hot)
        return before.is_whole and len(before.files) < self._policy.n_files_max and n_new * 10 < n_before

    def is_whole(self, before: Manifest, hot: list[SegmentInfo]) -> bool:
        """Whether a day is whole once its hot rows are compacted."""
        return before.is_whole if self.adds(before, hot) else self.is_over(before.day)

    def foretold(self, view: StoreView, due: dict[int, list[SegmentInfo]]) -> StoreView:
        """What `headrace.store.tiers.plan` will see once these days are compacted.

        Hot segments stand for the files that are not written yet: it tells days with files from days without, no more.
        """
        manifests = dict(view.manifests)
        for day, hot in due.items():
            before = manifests.get(day, Manifest(day))
            manifests[day] = replace(
                before,
                published_ns=self._now_ns,
                files=(*before.files, *hot),
                is_whole=self.is_whole(before, hot),
                aged="",
            )
        return replace(view, manifests=manifests)


def _hot_by_day(view: StoreView) -> dict[int, list[SegmentInfo]]:
    out: dict[int, list[SegmentInfo]] = {}
    for info in view.commits.segments:
        for day in view.days_left(info):
            if day in view.manifests and info.name in view.manifests[day].left_out:
                continue  # damaged: it stays beside the warm files
            out.setdefault(day, []).append(info)
    return out
