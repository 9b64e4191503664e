"""Sections [codecs.NAME]: read, checked, and obeyed by the compactor."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.codecs.choice import ANY, CodecChoice
from headrace.core.config import PlantSource, read_plant
from headrace.core.problems import InvalidConfig
from headrace.runtime.assemble import check_plant
from headrace.runtime.codec_choice import CodecChoices
from headrace.store.warm import decode_chunk, encode_chunk

PLANT = """
version = 1
[codecs.fast]
match = "leon/**/vibration"
weight = 1
[codecs.oven]
match = "leon/**"
use = "pco"
forbid = ["gorilla", "raw2"]
"""


def plant(text, tmp_path):
    return read_plant(text, PlantSource(tmp_path / "plant.toml"))


def test_the_most_specific_section_that_matches_counts(tmp_path):
    config = plant(
        PLANT.replace(', "raw2"', "") + '[codecs.all]\nmatch = "**"\nforbid = ["seasonal"]\n', tmp_path
    )
    check_plant(config)
    choices = CodecChoices(config.codecs)
    assert choices.of("leon/a/b/c/vibration") == CodecChoice(weight=1.0)
    assert choices.of("leon/a/b/c/temperature") == CodecChoice("pco", frozenset({"gorilla"}))
    assert choices.of("madrid/a/b/c/temperature") == CodecChoice(forbid=frozenset({"seasonal"}))
    assert CodecChoices({}).of("leon/a/b/c/vibration") is ANY


def test_sections_of_which_none_counts_more_are_a_problem(tmp_path):
    text = PLANT.replace(', "raw2"', "") + '[codecs.other]\nmatch = "**/temperature"\n'
    with pytest.raises(InvalidConfig) as e:
        check_plant(plant(text, tmp_path))
    (problem,) = e.value.problems
    assert problem.where == "codecs.other.match"
    assert "codecs.oven" in problem.message


def test_unknown_codecs_are_problems_with_their_key(tmp_path):
    with pytest.raises(InvalidConfig) as e:
        check_plant(plant(PLANT.replace('"pco"', '"pcoo"'), tmp_path))
    (problem,) = e.value.problems
    assert problem.where == "codecs.oven.use"
    assert "did you mean 'pco'" in problem.message
    with pytest.raises(InvalidConfig) as e:
        check_plant(plant(PLANT, tmp_path))
    assert [p.where for p in e.value.problems] == ["codecs.oven.forbid"]


@pytest.mark.parametrize(
    ("line", "text"), [("weight = 2", "1"), ("weigth = 1", "weight"), ('match = ""', "empty")]
)
def test_wrong_keys_are_problems(line, text, tmp_path):
    section = "[codecs.a]\n" + ("" if line.startswith("match") else 'match = "**"\n') + line
    with pytest.raises(InvalidConfig) as e:
        plant("version = 1\n" + section, tmp_path)
    assert text in str(e.value.problems[0])


def test_chunks_follow_the_choice():
    ts_ns = np.arange(500) * 10**9
    values = np.round(np.sin(np.arange(500) / 9), 2)
    free = encode_chunk(ts_ns, values, None)
    for choice in (
        CodecChoice(use="pco"),
        CodecChoice(use="gorilla"),
        CodecChoice(forbid=frozenset({"origin"})),
        CodecChoice(weight=1.0),
    ):
        chunk = encode_chunk(ts_ns, values, None, choice=choice)
        assert len(chunk.payload) > len(free.payload)
        assert chunk.value_codec.partition(" ")[0] == (choice.use or chunk.value_codec.partition(" ")[0])
        got_ts, got, _ = decode_chunk(
            chunk.payload, chunk[1:3], 500, values.dtype, (int(ts_ns[0]), int(ts_ns[-1]))
        )
        assert got_ts.tobytes() == ts_ns.tobytes()
        assert got.tobytes() == values.tobytes()


def test_a_share_of_each_value_reaches_the_chunk():
    ts_ns = np.arange(2_000) * 10**9
    values = 10 ** np.cumsum(np.random.default_rng(0).normal(0, 0.05, 2_000))
    chunk = encode_chunk(ts_ns, values, None, choice=CodecChoice(share=0.02))
    assert chunk.value_codec.startswith("relative")
    assert chunk.bound == pytest.approx(0.02 * values.max())
    _, got, _ = decode_chunk(chunk.payload, chunk[1:3], 2_000, values.dtype, (int(ts_ns[0]), int(ts_ns[-1])))
    assert (np.abs(got - values) <= 0.02 * values).all()
    assert encode_chunk(ts_ns, values, None).bound == 0.0
