"""Load: many episodes, many images, many threads, two processes in one home.

The large ones take minutes, so they are run when they are asked for: `FSIC_SLOW=1 pytest -s tests/test_load.py`, which
prints what each of them took. What grows with the task is made large (episodes, steps, rows), all else is tiny.
"""
import os, subprocess, sys, threading, time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fsic_nb import Tagger, bench
from fsic_nb.baselines import RelationConfig
from fsic_nb.core import FsicError
from fsic_nb.episodes import Episodes
from fsic_nb.evaluate import evaluate
from fsic_nb.features import FeatureStore, extract
from fsic_nb.files import read_json
from fsic_nb.support import simpleshot
from fsic_nb.train import Plan, Schedule, train
from test_features import last_shard, tiny_backbone

slow = pytest.mark.skipif(not os.environ.get('FSIC_SLOW'), reason='takes minutes: FSIC_SLOW=1 runs it')
linux = pytest.mark.skipif(not Path('/proc/self/statm').exists(), reason='memory in use is read from /proc')


def memory()->float:
    "MiB of this process that are its own: maps of files do not count."
    resident, shared = map(int, Path('/proc/self/statm').read_text().split()[1:3])
    return (resident-shared)*os.sysconf('SC_PAGE_SIZE')/2**20

class Measured:
    "Print what a block took: seconds, and MiB in use before, at most (where the block notes it) and after."
    def __init__(self, what): self.what = what
    def __enter__(self):
        self.start, self.before, self.seen = time.perf_counter(), memory(), []
        return self
    def __exit__(self, *error):
        after = memory()
        print(f'\n{self.what}: {time.perf_counter()-self.start:.0f} s, {self.before:.0f} MiB before, '
              f'{max([*self.seen, after]):.0f} at most, {after:.0f} after')


# --- many episodes -----------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def small(tmp_path_factory):
    "A made-up experiment: 600 images, 16 labels, four places, 24 channels."
    return bench.make_data(bench.Bench(tmp_path_factory.mktemp('small'), repeats=1, quick=True), 600, 16, 2, 24)


class Watched(Episodes):
    "Episodes that note how much memory is in use each time that a thousand are drawn."
    def __init__(self, episodes):
        self.__dict__.update(vars(episodes))
        self.seen = {}
    def __getitem__(self, e):
        if e%1000==0: self.seen[e] = memory()
        return super().__getitem__(e)


@slow
@linux
def test_twenty_thousand_episodes_are_scored_in_flat_memory(small):
    "The results are 16 average precisions and a few means an episode, 8 MB in all, in one table each; nothing else is kept."
    watched = Watched(small.episodes('test', 1))
    with Measured('20,000 scored episodes') as m:
        found = evaluate(dict(simpleshot=simpleshot(small.centre)), watched, small, n=20_000)['simpleshot']
        m.seen += watched.seen.values()
    assert found['map'].shape==(20_000,) and np.isfinite(found['map']).all()
    assert max(watched.seen.values())<watched.seen[3000]+20, watched.seen       # measured: the same to a MiB
    first = evaluate(dict(simpleshot=simpleshot(small.centre)), small.episodes('test', 1), small, n=100)['simpleshot']
    assert np.array_equal(first['map'], found['map'][:100])


@slow
@linux
def test_twenty_thousand_steps_are_learned_in_flat_memory(tmp_path):
    "The network is tiny; the loop around it is the one of every training: episodes, dropout, log, checkpoints."
    few = bench.make_data(bench.Bench(tmp_path, repeats=1, quick=True), 100, 4, 2, 8)
    watched = Watched(few.episodes('test', 1))
    plan = Plan(RelationConfig(8, dim=4, hidden=4), [watched], Schedule(steps=20_000, warmup=10, every=2000, batch=1))
    with Measured('20,000 steps') as m:
        train(plan, few, tmp_path/'run')
        m.seen += watched.seen.values()
    assert len(watched.seen)==20 and max(watched.seen.values())<watched.seen[2000]+20, watched.seen
    lines = (tmp_path/'run'/'log.jsonl').read_text().splitlines()
    assert len(lines)==20_000 and '"step": 19999' in lines[-1]


# --- many images -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('n', [1000, pytest.param(100_000, marks=slow)])
@linux
def test_a_store_of_many_rows(n, tmp_path):
    "It is opened, verified to its last row, sampled and evaluated without being in memory; one flipped bit in it is found."
    y = bench.make_labels(n, 16)
    with Measured(f'a store of {n:,} rows') as m:
        bench.write_store(tmp_path/'store', y, (2, 2), 24)
        m.seen.append(memory())
        store = FeatureStore(tmp_path/'store')
        store.verify()
        exp = bench.make_experiment(y, store)
        found = evaluate(dict(simpleshot=simpleshot(exp.centre)), exp.episodes('test', 1), exp, n=50)['simpleshot']
        assert np.isfinite(found['map']).all()
        assert max(*m.seen, memory())<m.before+100+n/1000
    with open(last_shard(store)/'locals.npy', 'r+b') as f:
        f.seek(-192, os.SEEK_END)                           # a row has 2*2*24 numbers of 2 bytes
        old = f.read(1)
        f.seek(-192, os.SEEK_END)
        f.write(bytes([old[0]^1]))
    other = FeatureStore(store.path)
    assert torch.equal(other[:n-1:max(1, n//50)], store[:n-1:max(1, n//50)])
    with pytest.raises(FsicError, match=f'row {store.meta["shards"][-1][1]-1} is not what was written'): other.verify()


@slow
@linux
def test_a_hundred_thousand_images(tmp_path):
    "They are looked at once, row by row; each has the features that it has alone."
    n, kinds = 100_000, 100
    colours = np.random.default_rng(0).integers(0, 256, (kinds, 8, 8, 3), dtype=np.uint8)
    images = [Image.fromarray(c) for c in colours]
    with Measured('100,000 images') as m:
        store = extract([images[i%kinds] for i in range(n)], tiny_backbone(), root=tmp_path)
        assert len(store)==n and memory()<m.before+300
    few = extract(images, tiny_backbone(), root=tmp_path/'few')
    ids = np.r_[np.random.default_rng(1).integers(0, n, 500), n-1]
    assert torch.allclose(store[ids], few[ids%kinds], atol=1e-3)
    assert np.allclose(store.mean_of(np.arange(n))[-kinds:], few.mean_of(np.arange(kinds)), atol=1e-5)


# --- many threads ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('rounds, photos', [(1, 5), pytest.param(4, 12, marks=slow)])
def test_eight_threads_on_one_tagger_give_the_answer_of_one(rounds, photos):
    "Bit for bit, of many photos and of one, and torch's number of threads is what it was, in new threads too."
    skimage = pytest.importorskip('skimage', reason='the photographs in scikit-image serve as photos')
    kinds = dict(cat='chelsea.png', coffee='coffee.png', rocket='rocket.jpg')
    whole = [Image.open(Path(skimage.__file__).parent/'data'/f).convert('RGB') for f in kinds.values()]
    some = [whole[i%3].crop((i, 2*i, i+200, 2*i+180)) for i in range(photos)]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        tagger = Tagger().fit(whole, [[k] for k in kinds])
        def ask(): return tagger.predict_proba(some).to_numpy(), tagger.predict_proba(some[:1]).to_numpy()
        want = ask()
        got, numbers = [None]*8, []
        start = threading.Barrier(8)
        def work(i):
            for _ in range(rounds):
                start.wait(60)
                got[i] = ask()
                if not all(map(np.array_equal, got[i], want)): return start.abort()
            numbers.append(torch.get_num_threads())
        begin = time.perf_counter()
        run_all([threading.Thread(target=work, args=(i,)) for i in range(8)])
        print(f'\n8 threads, {rounds} rounds of {photos}+1 photos each: {time.perf_counter()-begin:.0f} s')
        assert all(g and all(map(np.array_equal, g, want)) for g in got)
        run_all([threading.Thread(target=lambda: numbers.append(torch.get_num_threads()))])
        assert numbers==[2]*9 and torch.get_num_threads()==2
    finally: torch.set_num_threads(threads)


def run_all(workers):
    "Run threads or processes to their end."
    for w in workers: w.start()
    for w in workers: w.join()


# --- two processes -----------------------------------------------------------------------------------------------------

@slow
@linux
def test_two_processes_in_one_home_give_what_one_gives(tmp_path):
    "Both begin with nothing, and draw the scenes, look at them, learn and evaluate the same."
    def begin(home, name):
        out = open(tmp_path/f'{name}.txt', 'w')
        command = [Path(sys.executable).with_name('fsic_evaluate'), '--quick', '--method', 'laso,refined', '--shots', '1', '--episodes', '3',
                   '--out', tmp_path/f'{name}.json']
        return subprocess.Popen(command, env=dict(os.environ, FSIC_HOME=str(tmp_path/home)), stdout=out, stderr=out)
    def rows(name): return [{k: v for k, v in r.items() if k!='seconds'} for r in read_json(tmp_path/f'{name}.json')]
    def runs(home): return {p.relative_to(tmp_path/home): p.read_bytes() for p in sorted((tmp_path/home/'runs').rglob('*.safetensors'))}
    with Measured('two processes in one home, and one alone'):
        assert begin('one', 'alone').wait()==0, (tmp_path/'alone.txt').read_text()
        for p in [begin('two', 'left'), begin('two', 'right')]: assert p.wait()==0, ''.join((tmp_path/f'{n}.txt').read_text() for n in ('left', 'right'))
    assert rows('left')==rows('right')==rows('alone')
    assert runs('two')==runs('one') and runs('one')
    assert not [p for p in (tmp_path/'two').rglob('*') if '.part' in p.name]
