"Seeds, files that ship, names that are not known, and where results may be written."
import os, subprocess, sys
from pathlib import Path

import pytest

import fsic_nb
from fsic_nb.core import FsicError, draw_seed, nearest, rng, say, shipped
from fsic_nb.files import check_out, read_text

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize('name, known, says', [
    ('catt', ['cat', 'dog'], 'did you mean cat'), ('dg', ['dog', 'dig'], 'did you mean dog or dig'),
    (7, ['cat', 'dog'], 'known are cat, dog'), ('x', list('abcdefghi'), 'known are a, b, c, d, e, f, g, h, ...'), ('x', [], 'known are ')])
def test_nearest(name, known, says):
    got = nearest(name, known)
    assert got==says or sorted(got.split())==sorted(says.split())


def test_a_seed_is_a_function_of_its_key():
    keys = [(0, 'weights'), (1, 'weights'), (0, 'dropout'), (0, 'weights', 3)]
    seeds = [draw_seed(*k) for k in keys]
    assert seeds==[int(rng(*k).integers(2**31)) for k in keys] and len({*seeds})==4
    assert all(type(s) is int and 0<=s<2**31 for s in seeds)
    assert draw_seed(0, 'weights')==1964236709       # or no recorded run could be repeated


def test_shipped_finds_files_in_a_clone_and_in_an_installed_library(tmp_path, monkeypatch):
    assert shipped('splits', 'voc.json').samefile(ROOT/'data'/'splits'/'voc.json')
    assert shipped('configs').is_dir()
    f = tmp_path/'fsic_nb'/'data'/'splits'/'voc.json'
    f.parent.mkdir(parents=True)
    f.write_text('{}')
    monkeypatch.setattr(fsic_nb, '__file__', str(tmp_path/'fsic_nb'/'__init__.py'))
    assert shipped('splits', 'voc.json')==f and not shipped('splits', 'other.json').exists()


def test_check_out(tmp_path):
    check_out(tmp_path/'a'/'b'/'c.json')
    assert not (tmp_path/'a').exists()               # it only looks
    (tmp_path/'file').write_text('')
    for bad in (tmp_path, tmp_path/'file'/'c.json'):
        with pytest.raises(FsicError, match='no file can be written there; name another one'): check_out(bad)


def test_text_keeps_bytes_that_are_no_utf8(tmp_path):
    (tmp_path/'list.txt').write_bytes(b'caf\xe9.jpg\n')
    assert os.fsencode(read_text(tmp_path/'list.txt'))==b'caf\xe9.jpg\n'
    with pytest.raises(FsicError, match='list.txt: cannot be read'): read_text(tmp_path/'none'/'list.txt')


def test_what_is_said_is_there_at_once(tmp_path):
    "Even in a file, and even if the process ends without a word."
    code = "import os; from fsic_nb.core import say; say('one'); say(); os._exit(0)"
    env = {k: v for k, v in os.environ.items() if k!='PYTHONUNBUFFERED'}
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT, env=env, check=True)
    assert run.stdout=='one\n\n'


def test_core_does_not_load_torch():
    "Commands print their options without it."
    code = "import sys, fsic_nb.core; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)
