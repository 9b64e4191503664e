"""Which codecs the sections ``[codecs.NAME]`` of a plant file ask for, by path."""

from __future__ import annotations

import re
from collections.abc import Mapping

from headrace.codecs.choice import ANY, CodecChoice
from headrace.core.errors import ConfigError
from headrace.core.paths import pattern_regex
from headrace.core.problems import InvalidConfig, Problem, dotted
from headrace.core.settings import CodecSettings


class CodecChoices:
    """What is said about the codecs of each sensor; of several sections that match, the first in the file counts.

    Parameters
    ----------
    sections : name → section, in the order of the file.

    Raises
    ------
    InvalidConfig : every problem found: unknown codecs, one that is both used and forbidden.
    """

    def __init__(self, sections: Mapping[str, CodecSettings]) -> None:
        self._rules: list[tuple[re.Pattern[str], CodecChoice]] = []
        problems = []
        for name, section in sections.items():
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
