import sys

import pytest

from keras_xreid.progress import Progress


def work(progress):
    for _ in range(progress.total):
        progress.add()


@pytest.mark.parametrize(
    ("options", "lines"), [({}, ["Counting: 0 s"]), ({"show": False}, []), ({"after": 60}, [])]
)
def test_a_file_gets_one_line_at_the_end(options, lines, capsys):
    work(Progress("Counting", 1000, **options))
    assert capsys.readouterr().out.splitlines() == lines


def test_a_terminal_gets_a_bar_under_a_title(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    progress = Progress("Counting", 3, "person")
    assert capsys.readouterr().out == "Counting\n"
    work(progress)
    frames = capsys.readouterr().out
    assert "Counting" not in frames and "3/3" in frames and "/person" in frames


def test_short_work_is_silent_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    work(Progress("Counting", 3, after=60))
    assert capsys.readouterr().out == ""
