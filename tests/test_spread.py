"Episodes in shards: whatever the size, the engine and what was killed, lost or there twice, the merged numbers are those of one run."
import json, os, shutil
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
import numpy as np, pytest, torch
from fsic_nb import cli, paired, spread, studies
from fsic_nb.core import FsicError
from fsic_nb.data import ImageSet, LabelSplit
from fsic_nb.evaluate import evaluate
from fsic_nb.experiment import Experiment
from fsic_nb.files import read_json, write_json
from fsic_nb.paired import merge_parts, pair_results, read_parts, write_parts
from fsic_nb.shards import cut_range, parse_part, run_shards, take_part, try_shard
from fsic_nb.spread import evaluate_on, hash_method, make_spec, merge_folder, read_shards, score_part, score_shard, shard_name
from fsic_nb.studies import Comparison, compare

N, LABELS, L, C = 120, 6, 3, 8
silent = lambda line: None


class Store:
    "Local features in memory."
    key, grid, channels, path, meta = 'toy', (1, L), C, '', dict(backbone='toy', transform=dict(size=32))
    def __init__(self, y):
        r = np.random.default_rng(0)
        self.x = torch.from_numpy((y@r.normal(size=(LABELS, C)))[:, None]+r.normal(size=(len(y), L, C))).float()
    def __len__(self): return len(self.x)
    def __getitem__(self, ids): return self.x[torch.as_tensor(ids)]
    def mean_of(self, ids): return self[ids].mean(-2)

@pytest.fixture(scope='module')
def exp():
    r = np.random.default_rng(1)
    y = r.random((N, LABELS))<.2
    y[np.arange(N), np.arange(N)%LABELS] = True
    names = [f'label {i}' for i in range(LABELS)]
    images = ImageSet([f'{i}.jpg' for i in range(N)], names, y, 'toy')
    words = torch.randn(LABELS, 5, generator=torch.Generator().manual_seed(2))
    return Experiment('toy', images, LabelSplit('toy', [], [], names), Store(y), words, None, 'masked', 2)

@pytest.fixture
def toy(exp, monkeypatch):
    "Comparisons are of the toy, whatever data they name."
    spread._open_checked.cache_clear()
    monkeypatch.setattr(studies, 'choose_backbone', lambda *_: None)
    monkeypatch.setattr(studies, 'check_networks', lambda *_: None)
    monkeypatch.setattr(studies, 'prepare', lambda *_, **kw: exp)
    yield exp
    spread._open_checked.cache_clear()

HOW = Comparison([1, 2], 20)
NAMES = ['protonet', 'matching']

@pytest.fixture
def spec(toy): return make_spec([], NAMES, how=HOW, say=silent)

def bytes_of(parts): return [{m: {k: v.tobytes() for k, v in r.items() if k!='seconds'} for m, r in p.results.items()} for p in parts]
def no_clock(rows): return [{k: v for k, v in r.items() if k!='seconds'} for r in rows]


# --- cutting and running --------------------------------------------------------------------------------------------

@pytest.mark.parametrize('n,parts', [(10, 3), (3, 10), (200, 40), (0, 2)])
def test_parts_cover_everything_once(n, parts):
    found = [e for i in range(1, parts+1) for a, b in cut_range(*take_part(n, i, parts), 4) for e in range(a, b)]
    assert found==list(range(n))

@pytest.mark.parametrize('text', ['0/4', '5/4', '4', '/', '1/0', '-1/4', '1/2/3', '01/4', 'a/b', '1/99999999'])
def test_a_part_is_one_of_some(text):
    with pytest.raises(FsicError, match='from 1/40 to 40/40'): parse_part(text)

class Late:
    "An engine that answers like submitit: no futures, only `submit` and `result`."
    def __init__(self): self.asked = []
    def submit(self, f, *args):
        self.asked.append(args)
        class Job:
            def result(self): return f(*args)
        return Job()

def test_any_engine_will_do():
    want = [1, 4, 9]
    for engine in (None, Late()): assert run_shards(square, [1, 2, 3], engine)==want
    with ThreadPoolExecutor(2) as pool: assert run_shards(square, [1, 2, 3], pool)==want

def square(x): return x**2
def refuse(x): raise FsicError('photo.jpg: damaged; restore it.')
def kill(x): os._exit(9) if x==2 else None

def test_errors_for_the_user_stay_sentences_and_others_name_the_remedy():
    assert try_shard(refuse, 1)==(None, 'photo.jpg: damaged; restore it.')
    with pytest.raises(FsicError, match='^photo.jpg: damaged; restore it.$'): run_shards(refuse, [1], Late())
    with pytest.raises(FsicError, match=r'a worker ended \(TypeError.*run the same again'): run_shards(square, ['a'], Late())
    with pytest.raises(TypeError): run_shards(square, ['a'])          # here it is a mistake in the code

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='a spawned worker takes seconds')
def test_a_killed_worker_is_a_sentence():
    with ProcessPoolExecutor(1, mp_context=get_context('fork')) as pool:
        with pytest.raises(FsicError, match='a worker ended.*run the same again, shards that are done are kept'): run_shards(kill, [1, 2, 3], pool)

def test_what_is_not_wanted_any_more_is_cancelled():
    jobs = []
    class Engine:
        def submit(self, f, *args):
            jobs.append(Future())
            if len(jobs)==1: jobs[0].set_result((None, 'a: wrong; mend it.'))
            return jobs[-1]
    with pytest.raises(FsicError, match='a: wrong'): run_shards(square, [1, 2, 3], Engine())
    assert all(j.cancelled() for j in jobs[1:])


# --- shards are the run ---------------------------------------------------------------------------------------------

@pytest.fixture
def whole(toy, spec, tmp_path): return evaluate_on(None, spec, 20, 20, tmp_path/'whole')

@pytest.mark.parametrize('size', [1, 7, 100])
@pytest.mark.parametrize('threads', [False, True])
def test_any_shard_size_and_engine(spec, whole, tmp_path, size, threads):
    with ThreadPoolExecutor(2) as pool: got = evaluate_on(pool if threads else None, spec, 20, size, tmp_path/'s')
    assert bytes_of(got)==bytes_of(whole) and [p.about['shots'] for p in got]==[1, 2]

def test_the_numbers_are_those_of_evaluate(toy, whole, spec):
    study = spread.open_spec(spec)
    for part, eps in zip(whole, study.drawn):
        assert bytes_of([part])==bytes_of([paired.Part(part.about, 0, evaluate(study.methods, eps, toy, 20, batch=4))])

def test_lost_doubled_and_killed_shards(spec, whole, tmp_path, monkeypatch):
    out = tmp_path/'s'
    class Killed(Exception): pass
    done = []
    def dies(task):
        if len(done)==3: raise Killed
        done.append(task)
        return score_shard(task)
    with monkeypatch.context() as m:
        m.setattr(spread, 'score_shard', dies)
        with pytest.raises(Killed): evaluate_on(None, spec, 20, 4, out)
    assert len(list(out.glob('*.npz')))==3 and not list(out.glob('.*.part'))
    for name in ('1shot-00000004-00000008.npz', '1shot-00000000-00000004.npz'): (out/name).unlink()
    score_shard(dict(spec=spec, shots=1, start=2, stop=7, out=str(out)))        # overlaps what will be there
    asked = Late()
    assert bytes_of(evaluate_on(asked, spec, 20, 4, out))==bytes_of(whole)
    assert [(t['shots'], t['start']) for _, t in asked.asked]==[(1, 0), (1, 4), (1, 12), (1, 16), *[(2, i) for i in range(0, 20, 4)]]
    again = Late()
    assert bytes_of(evaluate_on(again, spec, 20, 6, out))==bytes_of(whole) and not again.asked      # nothing is missing

def test_parts_of_a_job_array_in_any_order(toy, spec, whole, tmp_path):
    for i in (3, 1, 2): score_part([], NAMES, 'scenes', None, HOW, tmp_path/'array', (i, 3))
    rows = merge_folder(tmp_path/'array', tmp_path/'r.json', say=silent)
    want = compare([], NAMES, how=HOW, out=tmp_path/'one.json', say=silent)
    assert no_clock(rows)==no_clock(want)==no_clock(read_json(tmp_path/'r.json'))
    assert bytes_of(read_parts(tmp_path/'r.npz'))==bytes_of(read_parts(tmp_path/'one.npz'))==bytes_of(whole)
    other = merge_folder(tmp_path/'array', tmp_path/'o.json', 'matching', say=silent)
    assert {r['baseline'] for r in other}=={'matching'} and other[2]['diff']==0

def test_the_commands_of_a_job_array(toy, tmp_path, capsys):
    asked = dict(method='matching', shots='1,2', episodes=6, out=str(tmp_path/'s'))
    for i in (1, 2): assert cli.fsic_evaluate(shard=f'{i}/2', **asked) is None     # a value would be the exit code
    assert cli.fsic_merge(str(tmp_path/'s'), str(tmp_path/'r.json')) is None
    assert cli.fsic_evaluate(**{**asked, 'out': str(tmp_path/'one.json')}) is None
    assert no_clock(read_json(tmp_path/'r.json'))==no_clock(read_json(tmp_path/'one.json'))
    assert (tmp_path/'r.npz').read_bytes()==(tmp_path/'one.npz').read_bytes()
    assert 'has part 2 of 2; when all are there: fsic_merge' in capsys.readouterr().out
    for wrong, says in ((dict(shard='3/2'), 'from 1/40 to 40/40'), (dict(shard='1/2', out='results.json'), 'needs --out, a folder')):
        with pytest.raises(SystemExit): cli.fsic_evaluate(**{**asked, **wrong})
        assert says in capsys.readouterr().err

def test_a_missing_part_is_named(toy, tmp_path):
    for i in (1, 3): score_part([], NAMES, 'scenes', None, HOW, tmp_path/'array', (i, 3))
    with pytest.raises(FsicError, match='simpleshot: episodes 6-12 are missing; run those shards'): merge_folder(tmp_path/'array', tmp_path/'r.json')
    assert not (tmp_path/'r.json').exists()
    score_part([], NAMES, 'scenes', None, HOW, tmp_path/'late', (1, 3))
    with pytest.raises(FsicError, match='episodes 6-19 are missing'): merge_folder(tmp_path/'late')      # the last ones, too

def test_more_episodes_of_the_same_are_welcome(spec, whole, tmp_path):
    evaluate_on(None, spec, 8, 4, tmp_path/'s')
    asked = Late()
    assert bytes_of(evaluate_on(asked, spec, 20, 4, tmp_path/'s'))==bytes_of(whole) and len(asked.asked)==6
    assert read_json(tmp_path/'s'/'spec.json')['how']['episodes']==20
    assert [len(p) for p in evaluate_on(None, spec, 8, 4, tmp_path/'s')]==[8, 8]


# --- what does not belong together ----------------------------------------------------------------------------------

@pytest.mark.parametrize('what', ['code', 'versions', 'features', 'device', 'methods'])
def test_a_worker_with_something_else_is_refused(spec, tmp_path, what):
    wrong = {**spec, 'checks': {**spec['checks'], what: 'another'}}
    with pytest.raises(FsicError, match='this worker has'): evaluate_on(None, wrong, 20, 7, tmp_path/'s')
    assert not list(tmp_path.rglob('*.npz'))

def test_changed_code_and_weights_are_seen(toy, spec, tmp_path, monkeypatch):
    with monkeypatch.context() as m:
        m.setattr(spread, 'hash_code', lambda *_: 'newer')
        with pytest.raises(FsicError, match='another version of fsic_nb'): spread.open_spec(spec)
    monkeypatch.setitem(vars(toy), 'centre', toy.centre+1e-6)           # of ML-SimpleShot
    with pytest.raises(FsicError, match='a method with other weights'): spread.open_spec(spec)

def test_other_images_are_refused(toy, spec, monkeypatch):
    y = toy.images.labels.copy()
    y[0] = ~y[0]
    other = Experiment('toy', ImageSet(toy.images.paths, toy.images.names, y, 'toy'), toy.split, toy.features, toy.words, None, 'masked', 2)
    monkeypatch.setattr(studies, 'prepare', lambda *_, **kw: other)
    with pytest.raises(FsicError, match='the images or labels here are not those'): spread.open_spec(spec)

def test_another_evaluation_in_the_same_folder_is_refused(toy, spec, tmp_path):
    evaluate_on(None, spec, 20, 10, tmp_path/'s')
    before = {p.name: p.read_bytes() for p in (tmp_path/'s').iterdir()}
    for names, how in ((['matching'], HOW), (NAMES, Comparison([1, 2], 20, seed=1)), (NAMES, Comparison([1], 20))):
        other = make_spec([], names, how=how, say=silent)
        with pytest.raises(FsicError, match='holds shards of another evaluation'): evaluate_on(None, other, 20, 10, tmp_path/'s')
    assert {p.name: p.read_bytes() for p in (tmp_path/'s').iterdir()}==before

def test_shards_do_not_lie_among_other_files(toy, spec, tmp_path, monkeypatch):
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine'/'notes.txt').write_text('x')
    (tmp_path/'file').write_text('x')
    monkeypatch.setattr(spread, 'make_spec', lambda *_: 1/0)                  # it is found out before any work
    for out, says in (('mine', 'something else in it .notes.txt.'), ('file', 'is a file; name a folder')):
        with pytest.raises(FsicError, match=says): score_part([], NAMES, 'scenes', None, HOW, tmp_path/out, (1, 2))
        with pytest.raises(FsicError, match=says): evaluate_on(None, spec, 20, 10, tmp_path/out)
    assert (tmp_path/'file').read_text()=='x' and [p.name for p in (tmp_path/'mine').iterdir()]==['notes.txt']

def test_files_are_found_from_any_folder(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_json('s.json', {})
    how = Comparison([1], 4, options=studies.Options(split='s.json'))
    said = make_spec([], NAMES, 'csv', 'mine.csv', how, silent)
    assert said['root']==str(tmp_path/'mine.csv')
    assert said['how']['options']['split']==str(tmp_path/'s.json')

def test_a_number_of_shots_may_be_named_twice(toy, tmp_path):
    said = make_spec([], NAMES, how=Comparison([1, 1], 4), say=silent)
    assert [len(p) for p in evaluate_on(None, said, 4, 4, tmp_path/'s')]==[4]

def test_a_shard_that_differs_from_its_twin_is_refused(spec, tmp_path):
    evaluate_on(None, spec, 20, 10, tmp_path/'s')
    [p] = read_parts(tmp_path/'s'/shard_name(1, 0, 10))
    p.results['matching']['ap'][3, 0] += 1e-12
    write_parts(tmp_path/'s'/'1shot-twin.npz', [p])
    with pytest.raises(FsicError, match='matching: episodes 0-9 were scored twice and differ in ap'): merge_folder(tmp_path/'s', tmp_path/'r.json')

def test_a_network_that_is_no_name_cannot_travel(toy):
    with pytest.raises(FsicError, match='cannot travel'): make_spec(how=Comparison(options=studies.Options(backbone=object())))

@pytest.mark.parametrize('harm', ['cut', 'empty', 'text', 'flipped'])
def test_a_damaged_shard_is_named(spec, tmp_path, harm):
    evaluate_on(None, spec, 20, 10, tmp_path/'s')
    file = tmp_path/'s'/shard_name(1, 0, 10)
    data = file.read_bytes()
    at = data.index(b'1.000')if b'1.000' in data else len(data)//2
    file.write_bytes(dict(cut=data[:-50], empty=b'', text=b'hello', flipped=data[:at]+bytes([data[at]^255])+data[at+1:])[harm])
    with pytest.raises(FsicError, match=f'{file.name}: no results of this library.*delete it and run the same again'): evaluate_on(None, spec, 20, 10, tmp_path/'s')

def test_no_pickle_is_read(tmp_path):
    np.savez(tmp_path/'a.npz', about=np.array([object()], object))
    with pytest.raises(FsicError, match='no results of this library'): read_parts(tmp_path/'a.npz')

def test_a_damaged_spec_is_named(spec, tmp_path):
    evaluate_on(None, spec, 20, 10, tmp_path/'s')
    for change in (dict(how={}), dict(how=dict(shots=[1], surprise=1)), dict(episodes=[]), dict(checks=3)):
        write_json(tmp_path/'s'/'spec.json', {**spec, **change})
        with pytest.raises(FsicError): merge_folder(tmp_path/'s', tmp_path/'r.json')
    with pytest.raises(FsicError, match='holds no spec.json'): merge_folder(tmp_path/'nowhere')


# --- pairing ----------------------------------------------------------------------------------------------------------

def test_results_of_two_days_are_paired(toy, tmp_path):
    a = compare([], ['protonet'], how=HOW, out=tmp_path/'a.json', say=silent)
    compare([], ['matching'], how=Comparison([1, 2], 12), out=tmp_path/'b.json', say=silent)
    both = compare([], NAMES, how=Comparison([1, 2], 12, baseline='matching'), out=tmp_path/'c.json', say=silent)
    rows = {(r['shots'], r['method'], r['other']): r for r in pair_results(tmp_path/'a.npz', tmp_path/'b.npz')}
    for r in both:
        if r['method']!='protonet': continue
        pair = rows[r['shots'], 'protonet', 'matching']
        assert (pair['diff'], pair['diff_ci95'], pair['episodes'])==(r['diff'], r['diff_ci95'], 12)
    assert len(a)==4
    compare([], ['matching'], how=Comparison([1, 2], 12, seed=1), out=tmp_path/'d.json', say=silent)
    with pytest.raises(FsicError, match='no episodes in common'): pair_results(tmp_path/'a.npz', tmp_path/'d.npz')

def test_records_are_not_overwritten_by_their_episodes(toy, tmp_path):
    with pytest.raises(FsicError, match='name the records .json'): compare([], NAMES, how=HOW, out=tmp_path/'a.npz', say=silent)


# --- weights ------------------------------------------------------------------------------------------------------------

def test_every_number_of_a_method_counts():
    from torch import nn
    from fsic_nb.support import simpleshot
    def closing(*xs): return lambda s: xs
    assert hash_method(closing(1, 2))!=hash_method(closing(2, 1))
    assert hash_method(closing(torch.zeros(2), torch.zeros(2)))!=hash_method(closing(torch.zeros(2), torch.ones(2)))
    m = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = hash_method(closing([dict(m=m)]))
    m[1].running_mean += 1                                            # a buffer
    assert hash_method(closing([dict(m=m)]))!=before
    assert hash_method(simpleshot(torch.zeros(3)))==hash_method(simpleshot(torch.zeros(3)))

def test_a_function_that_is_wrapped_is_the_same_method():
    import functools
    from fsic_nb.support import simpleshot
    method = simpleshot(torch.zeros(3))
    @functools.wraps(method)
    def checked(support, limit=3): return method(support)
    assert hash_method(checked)==hash_method(method)!=hash_method(simpleshot(torch.ones(3)))

def test_the_methods_of_a_study_have_hashes_of_their_own(spec):
    assert len(set(spec['checks']['methods'].values()))==3 and json.loads(json.dumps(spec))==spec
