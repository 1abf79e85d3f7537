"Every row of `bad_inputs`: one sentence, the right exit code, nothing written."
import contextlib, io, sys

import pytest

from bad_inputs import BAD
from fsic_nb.cli import main
from fsic_nb.core import FsicError, UNSEEN


def said_by(what, folder, monkeypatch):
    "What a row says, and its exit code; both streams of a command."
    if callable(what):
        with pytest.raises(FsicError) as e: what(folder)
        return str(e.value), None
    monkeypatch.setattr(sys, 'argv', ['fsic_nb', *what])
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(None), pytest.raises(SystemExit) as e: main()
    return err.getvalue(), e.value.code


@pytest.mark.parametrize('name, what, said, code', BAD, ids=[ascii(b[0]) for b in BAD])
def test_bad_input_is_one_sentence(name, what, said, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, got = said_by(what, tmp_path, monkeypatch)
    assert said in text and got==code, text
    last = text.rstrip('\n').split('\n')[-1]
    assert not UNSEEN.search(last) and len(last)<600
    if not callable(what):
        assert not list(tmp_path.iterdir()) and (text.startswith('error: ')==(text.count('\n')==1))


def test_rows_have_names_of_their_own():
    assert len({b[0] for b in BAD})==len(BAD)>=60
