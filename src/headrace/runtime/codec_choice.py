"""Which codecs the sections ``[codecs.NAME]`` of a plant file ask for, by path."""

from __future__ import annotations

import re
from collections.abc import Mapping

from headrace.codecs.choice import ANY, CodecChoice
from headrace.core.errors import ConfigError
from headrace.core.paths import pattern_regex
from headrace.core.problems import InvalidConfig, Problem, dotted
from headrace.core.settings import CodecSettings
from headrace.core.specificity import specificity, ties


class CodecChoices:
    """What is said about the codecs of each sensor; of several sections that match, the most specific one counts.

    Parameters
    ----------
    sections : name → section.

    Raises
    ------
    InvalidConfig : every problem found: unknown codecs, one that is both used and forbidden, sections of which none
        counts more where both match.
    """

    def __init__(self, sections: Mapping[str, CodecSettings]) -> None:
        self._rules: list[tuple[re.Pattern[str], CodecChoice]] = []
        names = list(sections)
        problems = [
            Problem(
                dotted(("codecs", names[j], "match")),
                f"{sections[names[j]].match!r} is as specific as {sections[names[i]].match!r} of [codecs.{names[i]}], and "
                "sensors may match both; make one of them more specific",
            )
            for i, j in ties([section.match for section in sections.values()])
        ]
        ordered = sorted(sections.items(), key=lambda item: specificity(item[1].match), reverse=True)
        for name, section in ordered:
            try:
                choice = CodecChoice(section.use or "", frozenset(section.forbid), section.weight)
            except ConfigError as e:
                problems.append(Problem(dotted(("codecs", name, e.where)), e.message))
                continue
            self._rules.append((pattern_regex(section.match), choice))
        if problems:
            raise InvalidConfig(problems)

    def of(self, path: str) -> CodecChoice:
        """The choice for the sensor of that path."""
        return next((choice for pattern, choice in self._rules if pattern.fullmatch(path)), ANY)
