"""100 of the 300 bad or odd inputs of `fuzz.py`: each gives a result, or one line."""

import logging

import pytest

pytest.importorskip("tyro", reason='the command line needs pip install -e ".[recipes]"')

import fuzz

CASES = [case for i, case in enumerate(fuzz.cases()) if i // len(fuzz.KINDS) % 3 == 0][:100]


@pytest.mark.parametrize(("name", "seed", "kind"), CASES, ids=[case[0] for case in CASES])
def test_a_result_or_one_line(name, seed, kind, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    caplog.set_level(logging.WARNING, "keras_xreid")
    assert fuzz.outcome(seed, kind, tmp_path) in ("result", "refused")
    assert not [text for text in caplog.messages if not text.isprintable()]


def test_there_are_a_hundred_of_three_hundred():
    assert (len(CASES), len(list(fuzz.cases()))) == (100, 300)


@pytest.mark.slow
@pytest.mark.parametrize("verb", sorted(fuzz.BAD.keys() - fuzz.NEEDS_MORE - {"export"}))
def test_without_what_is_wrong_a_command_does(verb, tmp_path):
    """Else it would be refused for another reason. Export is known by export --int8."""
    fuzz.there(tmp_path)
    fuzz.command([*verb.split(), *fuzz.good(verb)], tmp_path)
