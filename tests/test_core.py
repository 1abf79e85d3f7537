"Seeds, files that ship, names that are not known, and where results may be written."
import os, subprocess, sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import fsic_nb
from fsic_nb.core import FsicError, draw_seed, nearest, rng, say, shipped, writable
from fsic_nb.episodes import Episode
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


@pytest.mark.filterwarnings('error')
def test_what_cannot_be_written_to_becomes_a_tensor_without_a_warning():
    "The labels of a data set, a row that is repeated: PyTorch would warn, in red in a notebook, and share their memory."
    def fixed(x, *shape): return np.broadcast_to(np.asarray(x), (*shape, *np.shape(x)))
    import torch   # not by `core`, see above
    from fsic_nb import Features, Support, metrics
    from fsic_nb.cache import Cache
    from fsic_nb.named import number_labels
    from fsic_nb.names import LabelWords
    from fsic_nb.probes import look_up
    from fsic_nb.support import load_episodes
    torch.set_warn_always(True)
    try:
        with pytest.raises(UserWarning, match='not writable'): torch.as_tensor(fixed([1., 2.], 2))   # it can warn
        s, y = fixed([.1, .9, .5], 2), fixed([True, False, True], 2)
        assert metrics.average_precision(s, y, weights=fixed([1., 1., 1.], 2)).tolist()==metrics.average_precision(s.copy(), y.copy()).tolist()
        assert metrics.chance_level(fixed(1., 2), fixed(3., 2)).shape==(2,)
        support = Support(Features(fixed(np.ones((7, 4), np.float32), 3)), fixed([True, False], 3), torch.ones(2, 5), fixed(np.array([0, 1])))
        assert support.y.sum()==3 and number_labels(support, 'x').tolist()==[0, 1]
        words = LabelWords(['cat', 'dog'])
        assert words[fixed(1, 2)].shape[0]==2
        query = SimpleNamespace(ids=fixed(0, 2))
        assert look_up(torch.ones(1, 2))(support)(query).shape==(2, 2)
        f = torch.arange(6.).view(2, 3, 1)
        store = type('Store', (), dict(__len__=lambda o: 2, __getitem__=lambda o, i: f[writable(i)], mean_of=lambda o, i: f[writable(i)].mean(-2)))()
        exp = SimpleNamespace(features=store, words=words)
        assert Cache(exp)(lambda x: 2*x, fixed(1, 2)).tolist()==[[[6.], [8.], [10.]]]*2
        assert Cache(exp)(lambda x: x, fixed(1, 2), of='words').shape[0]==2
        ep = Episode(fixed(0, 2), fixed(1, 2), fixed(0, 1), fixed(True, 2, 1), fixed(False, 2, 1), 0, 0, 2, 2)
        assert load_episodes(exp, [ep])[2].shape==(1, 2, 1)
    finally: torch.set_warn_always(False)
