"Every row of `bad_inputs`: one sentence, the right exit code, nothing begun and nothing written, as the table of nbs/51_bad_input says."
import json, re
from pathlib import Path

import pytest

from bad_inputs import BAD, KINDS, said_by, shown
from fsic_nb.core import UNSEEN

RECORD = Path(__file__).resolve().parents[1]/'data'/'results'/'bad_input.json'

@pytest.fixture(scope='module')
def table(): return {(r['kind'], r['input']): r for r in json.loads(RECORD.read_text(encoding='utf-8'))}

def own_words(said):
    "Without what Python, the system or another library says, which stands in parentheses."
    return re.sub(r'\(.*\)', '()', said)


@pytest.mark.parametrize('kind, name, what, said, code', BAD, ids=[ascii(f'{b[0]}: {b[1]}') for b in BAD])
def test_bad_input_is_one_sentence(kind, name, what, said, code, tmp_path, table):
    text, got = said_by(what, tmp_path)
    assert said in text and got==code, text
    last = text.rstrip('\n').split('\n')[-1]
    assert not UNSEEN.search(last) and len(last)<600
    if code: assert text.startswith('error: ')==(text.count('\n')==1)
    row = table[kind, name]
    assert own_words(shown(text, tmp_path))==own_words(row['said']) and (row['code'] or None)==code, 'run tools/bad_input.py'


def test_the_table_has_every_row_once(table):
    assert len({b[:2] for b in BAD})==len(BAD)==len(table)>=400
    assert {k for k, _ in table}==set(KINDS)
