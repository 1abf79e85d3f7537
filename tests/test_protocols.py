"Splits, label lists and given supports: against their derivation, slow references, spoilt files and, where present, real label lists."
import copy, gzip, json, os, random, re, subprocess, sys, types
from pathlib import Path
from types import SimpleNamespace

import numpy as np, pytest, torch
from hypothesis import HealthCheck, assume, given, settings, strategies as st

from fsic_nb.core import FsicError, fingerprint
from fsic_nb.files import read_json, write_json
from fsic_nb.data import ImageSet, LabelSplit, PARTS, PROTOCOLS, filter_counts, select
from fsic_nb.voc import VOC_NAMES, VOC_SPLIT
from fsic_nb.episodes import Episodes, collate
from fsic_nb.evaluate import evaluate, records
from fsic_nb.protocols import (AS_COCO, COCO_IDS, COCO_NAMES, FREQUENCY, FixedEpisodes,
        METHOD_NAMES, QUERIES, SETS, SHOTS, SPLITS, coco_base, hold_out, load_split, read_labels,
        read_supports, split_by_frequency, split_of)
from fsic_nb.metrics import chance_level
from fsic_nb.readers import NUSWIDE_NAMES
from fsic_nb.support import simpleshot

ROOT = Path(__file__).resolve().parents[1]
COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
EVERY = dict(voc=VOC_NAMES, coco=COCO_NAMES, nuswide=NUSWIDE_NAMES)


def image_set(y, name='made'):
    y = np.asarray(y, dtype=bool)
    return ImageSet([f'{i:04d}.jpg' for i in range(len(y))], [f'c{c}' for c in range(y.shape[1])], y, name)


# --- splits ------------------------------------------------------------------------------------------------------------

# What results are quoted by. If one of these changes, old records speak of another split than the one that bears its name.
HASHES = dict(voc='d618b91d26f14aff', voc_14_6='b68a2694e25c52d3', coco_52_12_16='f5b1665b2640cf89', coco_64_16='6363b28490d1a4e0',
              nuswide_65_16='b7454df3cb4d1a58')

def test_the_hashes_are_those_of_old_records(): assert {k: s.fingerprint() for k, s in SPLITS.items()}==HASHES

@pytest.mark.parametrize('name', SPLITS)
def test_a_file_is_its_constant(name):
    path = ROOT/'data'/'splits'/f'{name}.json'
    assert LabelSplit.from_json(path)==SPLITS[name]==load_split(name)==load_split(path)
    assert read_json(path)['hash']==SPLITS[name].fingerprint() and SPLITS[name].source

def test_no_file_is_without_its_constant(): assert {p.stem for p in (ROOT/'data'/'splits').glob('*.json')}==set(SPLITS)

@pytest.mark.parametrize('name', SPLITS)
def test_every_label_is_in_one_part_in_the_data_sets_order(name):
    every, split = EVERY[name.split('_')[0]], SPLITS[name]
    assert sorted(n for p in PARTS for n in split.labels(p))==sorted(every)
    for p in PARTS: assert split.labels(p)==[n for n in every if n in split.labels(p)]
    want = [int(n) for n in name.split('_')[1:]] or [8, 6, 6]
    assert [len(split.labels(p)) for p in PARTS if split.labels(p)]==want

def test_laso_is_derived():
    state = random.getstate()
    try: random.seed(0); base = random.sample(range(80), 64)
    finally: random.setstate(state)
    assert SPLITS['coco_64_16'].labels('train')==[COCO_NAMES[i] for i in sorted(base)]
    assert SPLITS['coco_52_12_16'].labels('test')==SPLITS['coco_64_16'].labels('test')==[COCO_NAMES[i] for i in sorted(set(range(80))-set(base))]

def test_a_changed_file_does_not_pass_for_the_split(tmp_path):
    f = tmp_path/'mine.json'
    d = read_json(ROOT/'data'/'splits'/'coco_64_16.json')
    for part in ('train', 'test'): d[part] = [[n for n in d[part][0] if n not in ('person', 'vase')]]
    write_json(f, d)
    with pytest.raises(FsicError, match=r'mine.json: its labels have the hash [0-9a-f]{16}, the file says 6363b28490d1a4e0'): load_split(f)
    write_json(f, {k: v for k, v in d.items() if k!='hash'})
    assert len(load_split(f).labels('train'))==63

def test_the_library_needs_no_files(tmp_path):
    "Installed without data/, the splits are there."
    code = 'from fsic_nb.protocols import SPLITS, load_split; print(len(SPLITS), load_split("coco_64_16").fingerprint())'
    out = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True, text=True, check=True)
    assert out.stdout.split()==['5', HASHES['coco_64_16']]

def test_held_out_labels():
    laso, val = SPLITS['coco_64_16'], SPLITS['coco_52_12_16'].labels('val')
    new = hold_out(laso, val)
    assert new.fingerprint()==HASHES['coco_52_12_16'] and new.name=='coco_64_16 (12 held out)'
    two = hold_out(LabelSplit('s', [['a', 'b'], ['c']], [], ['d']), ['b', 'c'], 'mine')
    assert (two.train, two.val, two.test, two.name)==([['a']], [['b', 'c']], [['d']], 'mine')
    for bad in ('boat', 'no such label'):
        with pytest.raises(FsicError, match=f'coco_64_16: {bad} is no training label'): hold_out(laso, ['person', bad])

def test_a_split_without_validation_labels():
    "It can be trained and tested on; asking for its validation episodes is an error that says so."
    images = image_set(np.tile(np.eye(4), (12, 1)))
    split = LabelSplit('bare', images.names[:2], [], images.names[2:])
    assert Episodes(images, split, 'train')[0].y.shape==Episodes(images, split)[0].y.shape==(2, 2)
    with pytest.raises(FsicError, match='split bare has no val labels; ask for another part, or give it some'): Episodes(images, split, 'val')
    assert [r for r in filter_counts(images, split) if r['part']=='val']==[dict(part='val', label='(any)', images=0, strict=0, masked=0)]

@pytest.mark.parametrize('name', ['coco', 'coco_65_15', '', 'voc.jsn'])
def test_unknown_splits(name):
    with pytest.raises(FsicError, match='no split is called .* known are voc, voc_14_6'): load_split(name)


# --- by frequency ------------------------------------------------------------------------------------------------------

@COMMON
@given(st.integers(0, 2**32-1), st.integers(2, 12), st.data())
def test_by_frequency(seed, c, data):
    r = np.random.default_rng(seed)
    images = image_set(r.random((60, c))<r.random(c)*.6)
    sizes, need = [data.draw(st.integers(0, 5)) for _ in PARTS], data.draw(st.integers(0, 20))
    n = dict(zip(images.names, images.counts().tolist()))
    if sum(sizes)>sum(k>=need for k in n.values()):
        with pytest.raises(FsicError, match=f'needs {sum(sizes)}; ask for fewer'): split_by_frequency(images, *sizes, need)
        return
    s = split_by_frequency(images, *sizes, need)
    names = [x for p in PARTS for x in s.labels(p)]
    assert [len(s.labels(p)) for p in PARTS]==sizes
    assert names==sorted(names, key=lambda x: (-n[x], x)) and all(n[x]>=need for x in names)
    rest = [n[x] for x in n if x not in names and n[x]>=need]
    assert not names or not rest or max(rest)<=min(n[x] for x in names)         # only rarer ones are left over
    turned = image_set(images.labels[:, ::-1])
    again = split_by_frequency(ImageSet(images.paths, images.names[::-1], turned.labels, 'made'), *sizes, need)
    assert [again.tasks(p) for p in PARTS]==[s.tasks(p) for p in PARTS]         # whatever the order of columns

def test_by_frequency_refuses_less_than_nothing():
    with pytest.raises(FsicError, match='ask for fewer'): split_by_frequency(image_set(np.ones((20, 5))), 3, -1, 2)


# --- what a data set is measured on --------------------------------------------------------------------------------------

def test_every_data_set_has_a_split_and_a_filter():
    assert (SHOTS, QUERIES)==((1, 5), 4)
    for split, protocol in SETS.values(): assert (split in SPLITS or FREQUENCY.fullmatch(split)) and protocol in PROTOCOLS

def test_a_split_by_name_loses_validation_labels_only():
    y = np.zeros((200, 20), dtype=bool)
    y[np.arange(200), np.arange(200)%20] = True                                          # ten images a label
    val = VOC_SPLIT.labels('val')
    y[np.flatnonzero(y[:, VOC_NAMES.index(val[0])])[:2]] = np.arange(20)==VOC_NAMES.index(val[1])
    images = ImageSet([f'{i}.jpg' for i in range(200)], VOC_NAMES, y, 'made')
    split, out = split_of('voc', images)
    assert out=={val[0]: 8} and split.labels('val')==[n for n in val if n!=val[0]]
    assert split.labels('train')==VOC_SPLIT.labels('train') and split.labels('test')==VOC_SPLIT.labels('test')
    assert split_of('voc', images, 8)==(VOC_SPLIT, {})

@pytest.mark.parametrize('name', ['frequency_4_2', 'frequency_4_2_3_1', 'frequency_a_2_3', 'Frequency_4_2_3'])
def test_what_is_no_frequency_is_no_split(name):
    with pytest.raises(FsicError, match='no split is called'): split_of(name, image_set(np.eye(9, dtype=bool)[np.arange(90)%9]))

def test_a_split_by_frequency_is_made_by_name():
    images = image_set(np.eye(9, dtype=bool)[np.minimum(np.arange(120)%12, 8)])          # c8 is the most frequent
    split, out = split_of('frequency_4_2_3', images)
    assert (split.name, out)==('made_frequency_4_2_3', {}) and split.labels('train')==['c8', 'c0', 'c1', 'c2']
    assert split.fingerprint()==split_by_frequency(images, 4, 2, 3).fingerprint()

def test_coco_as_a_second_data_set_tests_what_voc_left_new():
    images = ImageSet([f'{i}.jpg' for i in range(80)], COCO_NAMES, np.eye(80, dtype=bool), 'coco')
    known = {AS_COCO.get(n, n) for n in VOC_SPLIT.labels('train')+VOC_SPLIT.labels('val')}
    split = coco_base(images)
    assert known<set(COCO_NAMES) and set(split.labels('test'))==set(COCO_NAMES)-known
    assert not split.labels('train') and not split.labels('val')

def test_methods_have_names_of_their_own_that_fit_the_table():
    assert len(set(METHOD_NAMES.values()))==len(METHOD_NAMES) and max(map(len, METHOD_NAMES.values()))<=26
    assert METHOD_NAMES['paper']!='paper' and METHOD_NAMES['paper-best']!='paper'        # neither row is the paper's own


# --- label lists -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('text, says', [
    ('[', 'not valid JSON'), ('[]', 'no list is called names'), ('{"names": "abc"}', 'no list is called names'),
    ('{"names": ["a"], "p": {"x": [1]}}', 'p, x: expected label numbers from 0 to 0, found [1]'),
    ('{"names": ["a"], "p": {"x": [-1]}}', 'found [-1]'), ('{"names": ["a"], "p": {"x": [true]}}', 'found [True]'),
    ('{"names": ["a"], "p": {"x": 0}}', 'found 0'), ('{"names": ["a"], "p": {"x": ["a"]}}', "found ['a']"),
    ('{"names": ["a", "a"], "p": {"x": [0]}}', "'a' appears twice in names"),
    ('{"names": ["a", "b"], "p": {"x": [0]}, "q": {"x": [1]}}', 'q, x: other labels than in another part')])
@pytest.mark.parametrize('zipped', [False, True])
def test_spoilt_label_lists(tmp_path, text, says, zipped):
    f = tmp_path/('zoo.json'+'.gz'*zipped)
    (lambda b: f.write_bytes(gzip.compress(b) if zipped else b))(text.encode())
    if says=='not valid JSON' and zipped: says = 'not gzipped JSON'
    with pytest.raises(FsicError, match=re.escape(says)) as e: read_labels(f)
    assert '\n' not in str(e.value)
    if 'twice' not in says: assert f.name in str(e.value)

def test_a_cut_or_missing_archive(tmp_path):
    f = tmp_path/'zoo.json.gz'
    with pytest.raises(FsicError, match='zoo.json.gz: no such file'): read_labels(f)
    for b in (gzip.compress(b'{"names": ["a"]}'*50)[:-9], b'plain text', b'\xff'*20):
        f.write_bytes(b)
        with pytest.raises(FsicError, match='zoo.json.gz: not gzipped JSON'): read_labels(f)

def test_label_lists(tmp_path):
    f = tmp_path/'zoo.json'
    write_json(f, dict(names=['a', 'b'], note='no part', ids=[7, 9], p={'1': [0], 'd/2': [1, 0]}, q={'d/2': [0, 1, 1], '3': []}))
    s = read_labels(f, 'zoo!')
    assert s.name=='zoo!' and [p.as_posix() for p in s.paths]==['1', 'd/2', '3'] and s.labels.tolist()==[[True, False], [True, True], [False, False]]


# --- given supports ----------------------------------------------------------------------------------------------------

def draw_run(images, names, shots, r):
    "Label by label, images that came along count."
    own, ids = images.labels[:, images.index(names)], []
    for i in range(len(names)):
        free = np.setdiff1d(np.flatnonzero(own[:, i]), ids)
        ids += r.permutation(free)[:max(0, shots-int(own[ids, i].sum()))].tolist()
    return {n: [images.paths[k].name for k in ids if own[k, i]] for i, n in enumerate(names)}

@st.composite
def given_worlds(draw):
    "Images, a split in two, and some runs for its test labels."
    seed, c, shots = draw(st.integers(0, 2**32-1)), draw(st.integers(3, 8)), draw(st.integers(1, 3))
    r = np.random.default_rng(seed)
    n = draw(st.integers(60, 150))
    y = r.random((n, c))<draw(st.sampled_from([.1, .3]))
    y[np.arange(n), r.integers(0, c, n)] = True
    images, k = image_set(y), draw(st.integers(2, c-1))
    split = LabelSplit('two', images.names[k:], [], images.names[:k])
    protocol = draw(st.sampled_from(PROTOCOLS))
    usable = images.take(select(images, split.labels('test'), protocol))
    runs = {f'run {e}': draw_run(usable, split.labels('test'), shots, r) for e in range(3)}
    assume(all(min(map(len, run.values()))==shots for run in runs.values()))
    pool = draw(st.sampled_from([None, np.arange(n)[r.random(n)<.8]]))
    return images, split, runs, dict(protocol=protocol, pool=pool, queries=draw(st.sampled_from(['all', 1, 2, 4])), seed=draw(st.integers(0, 9))), shots

@COMMON
@given(given_worlds())
def test_given_supports_keep_the_rules(world):
    images, split, runs, kw, shots = world
    try: eps = FixedEpisodes(images, split, runs, **kw)
    except FsicError as e:
        assert re.search('query images can be had for|no image is left to ask about', str(e)); return
    task, name = split.labels('test'), {p.name: i for i, p in enumerate(images.paths)}
    assert len(eps)==len(list(eps))==3 and eps.shots==shots
    for e, (run, ep) in enumerate(zip(runs.values(), eps)):
        assert set(ep.support)=={name[i] for ids in run.values() for i in ids} and len(set(ep.support))==len(ep.support)
        assert np.array_equal(ep.y, images.labels[np.ix_(ep.support, ep.labels)]) and np.array_equal(ep.y_query, images.labels[np.ix_(ep.query, ep.labels)])
        assert [images.names[c] for c in ep.labels]==task and (ep.y.sum(0)>=shots).all() and ep.y_query.any(0).all()
        assert len(set(ep.query))==len(ep.query) and not set(ep.query) & set(ep.support)
        rest = set(select(images, task, kw['protocol'])) - set(ep.support)
        if kw['pool'] is not None: rest &= set(kw['pool'].tolist())
        if kw['queries']=='all': assert set(ep.query)==rest
        else:
            Q = kw['queries']
            assert set(ep.query)<=rest and len(ep.query)==Q*len(task) and ep.y_query[np.arange(Q*len(task)), np.repeat(np.arange(len(task)), Q)].all()
        again = FixedEpisodes(images, split, runs, **kw)[e]
        assert (ep.e, ep.task, ep.shots, ep.queries)==(e, 0, shots, kw['queries']) and np.array_equal(again.query, ep.query) and np.array_equal(again.support, ep.support)
    assert eps.fingerprint()==FixedEpisodes(images, split, copy.deepcopy(runs), **kw).fingerprint()

def small_world():
    y = np.tile(np.eye(4, dtype=bool), (12, 1))
    y[:12] |= np.roll(y[:12], 1, axis=1)                                   # the first twelve carry two labels
    images = image_set(y)
    return images, LabelSplit('small', images.names[3:], [], images.names[:3])

GOOD = dict(c0=['0016'], c1=['0017.jpg'], c2=['0018'])

@pytest.mark.parametrize('run, kw, says', [
    (dict(c0=['0017']), {}, 'run b: image 0017 is given for c0 but does not carry it in made'),
    (dict(c0=['9']), {}, 'run b: image 9 is not among the 48 of made'),
    (dict(c0=[]), {}, 'run b: no image is given for c0, a test label of small'),
    (dict(c3=['0019']), {}, 'run b: c3 is no test label of small'),
    (dict(c0=['0016', '0020'], c1=['0017', '0021'], c2=['0018', '0022']), {}, 'run a is a 1-shot run and run b a 2-shot one'),
    (dict(c0=['0003']), dict(protocol='strict'), "run b: 0003.jpg and 0 others carry labels that the task does not have; use protocol='masked'"),
    ({}, dict(queries=40), 'query images can be had for'), ({}, dict(pool=[16, 17, 18]), 'no image is left to ask about c0'),
    ({}, dict(queries=0), "queries=0: expected a whole number, at least 1, or 'all'"), ({}, dict(queries='some'), "queries='some': expected"),
    ({}, dict(negatives='some'), "negatives='some': expected"), ({}, dict(negatives=-1), 'negatives=-1: expected a whole number, at least 0'),
    ({}, dict(negatives=13), 'made: an episode needs 13 images without any of its labels, but 9 are there'),
    ({}, dict(queries=True), 'queries=True: expected'), ({}, dict(protocol='lax'), "no protocol is called 'lax'"),
    ({}, dict(part='val'), 'fixed supports need one val task, it has 0'), ({}, dict(part='tset'), "no part is called 'tset'")])
def test_wrong_runs_name_the_run(run, kw, says):
    images, split = small_world()
    with pytest.raises(FsicError, match=re.escape(says)) as e: FixedEpisodes(images, split, dict(a=GOOD, b={**GOOD, **run}), **kw)
    assert '\n' not in str(e.value)

def test_no_runs_and_wrong_numbers():
    images, split = small_world()
    with pytest.raises(FsicError, match='there are no runs'): FixedEpisodes(images, split, {})
    eps = FixedEpisodes(images, split, dict(a=GOOD))
    for e in (1, -1, 'x', 1.):
        with pytest.raises(FsicError, match='there are 1 runs, numbered 0 to 0'): eps[e]

def test_a_name_must_mean_one_image():
    y = np.tile(np.eye(2, dtype=bool), (3, 1))
    images = ImageSet(['2007/a.jpg', '2007/b.jpg', '2012/a.jpg', '2012/b.png', '2012/c.jpg', '2012/d.jpg'], ['x', 'y'], y, 'two years')
    split = LabelSplit('s', [], [], ['x', 'y'])
    with pytest.raises(FsicError, match='several images of two years are called a; write the folder before it'): FixedEpisodes(images, split, dict(r=dict(x=['a'], y=['d'])))
    for a in ('2012/a', '2012/a.jpg'): assert FixedEpisodes(images, split, dict(r=dict(x=[a], y=['b.png'])))[0].support.tolist()==[2, 3]

def test_drawn_queries_change_with_seed_and_run():
    images, split = small_world()
    runs = dict(a=GOOD, b=GOOD)
    eps, other = (FixedEpisodes(images, split, runs, queries=2, seed=s) for s in (0, 1))
    assert len({tuple(x.query) for x in [*eps, *other]})==4

def test_negatives_of_given_supports():
    images, split = small_world()
    runs, free = dict(a=GOOD, b=GOOD), np.flatnonzero(~images.labels[:, :3].any(1))
    plain = FixedEpisodes(images, split, runs)
    every, some = (FixedEpisodes(images, split, runs, negatives=n) for n in ('all', 4))
    for e in range(2):
        assert np.array_equal(every[e].query, [*plain[e].query, *free]) and not every[e].y_query[-len(free):].any()
        assert np.array_equal(some[e].query[:-4], plain[e].query) and {*some[e].query[-4:]}<={*free}
        assert np.array_equal(some[e].query, FixedEpisodes(images, split, runs, negatives=4)[e].query)
    assert not np.array_equal(some[0].query[-4:], some[1].query[-4:])
    assert {*FixedEpisodes(images, split, runs, negatives='all', pool=range(40))[0].query[-3:]}<={*free[free<40]}
    one = LabelSplit('one', [], [], ['c0'])
    with pytest.raises(FsicError, match='one label alone'): FixedEpisodes(images, one, dict(a=dict(c0=['0016'])))
    assert FixedEpisodes(images, one, dict(a=dict(c0=['0016'])), negatives='all')[0].y_query.mean()<.6
    assert len({x.fingerprint() for x in (plain, every, some)})==3
    known = fingerprint(images.fingerprint(), split.fingerprint(), runs, 'test', 'all', plain.pool, 'masked', 0)
    assert plain.fingerprint()==known                                                      # as it was before there were negatives

def test_unknown_labels_of_given_supports():
    images, split = small_world()
    unknown = (np.random.default_rng(0).random(images.labels.shape)<.3)&~images.labels
    unsure = ImageSet(images.paths, images.names, images.labels, 'made', unknown=unknown)
    ep = FixedEpisodes(unsure, split, dict(a=GOOD), negatives='all')[0]
    assert np.array_equal(ep.known, ~unknown[np.ix_(ep.support, ep.labels)]) and np.array_equal(ep.known_query, ~unknown[np.ix_(ep.query, ep.labels)])
    assert {i for i in ep.query if not images.labels[i, :3].any()}=={*np.flatnonzero(~(images.labels|unknown)[:, :3].any(1))}

@pytest.mark.parametrize('text, kw, says', [
    ('[]', {}, 'expected {run: {label: [images]}}'), ('{}', {}, 'expected {run:'), ('{"r": {}}', {}, 'runs.json, r: expected {label: [images]}'),
    ('{"r": [1]}', {}, 'r: expected {label: [images]}, found [1]'), ('{"r": {"c0": "a"}}', {}, 'r, c0: expected a list of images, found a'),
    ('{"r": {"c0": []}}', {}, 'r, c0: expected a list of images'), ('{"r": {"c0": [true]}}', {}, 'r, c0: expected a list of images'),
    ('{"r": {"c0": ["a", "a"]}}', {}, 'r, c0: image a is listed twice'),
    ('{"r": {"c0": [3]}}', {}, 'r, c0: image 3 is a number; give the list it counts in as files'),
    ('{"r": {"c0": [3]}}', dict(files=['a', 'b']), 'r, c0: image 3 is no number from 0 to 1; give the right files'),
    ('{"r": {"c0": [-1]}}', dict(files=['a', 'b']), 'image -1 is no number from 0 to 1'),
    ('{"r": {"c0": ["a"]}}', dict(names=['a']), "r: label 'c0' is no number from 0 to 0; give the right names"), ('{', {}, 'not valid JSON')])
def test_spoilt_runs_name_file_and_record(tmp_path, text, kw, says):
    f = tmp_path/'runs.json'
    f.write_text(text)
    with pytest.raises(FsicError, match='runs.json.*'+re.escape(says.removeprefix('runs.json'))) as e: read_supports(f, **kw)
    assert '\n' not in str(e.value)


# --- scored ------------------------------------------------------------------------------------------------------------

class Store:
    "Features that give the labels away: one place, one channel a label."
    def __init__(self, images): self.x = torch.as_tensor(images.labels.astype(np.float32))
    def __len__(self): return len(self.x)
    def __getitem__(self, ids): return self.mean_of(ids)[..., None, :]
    def mean_of(self, ids): return self.x[torch.as_tensor(np.asarray(ids))]

def experiment(images): return types.SimpleNamespace(features=Store(images), words=torch.zeros(len(images.names), 2))

def told(support): return lambda query: query.means[..., torch.as_tensor(np.asarray(support.labels)[0])]
def mean(support): return lambda query: query.means @ (support.y.float().mT @ support.x.means).mT

def test_evaluate_and_records_take_given_supports():
    images, split = small_world()
    runs = dict(a=GOOD, b=dict(c0=['0000', '0003'], c1=['0000'], c2=['0018']))             # of 3 and of 3 images
    runs['c'] = {**GOOD, 'c0': ['0016', '0020']}                                           # of 4
    eps = FixedEpisodes(images, split, runs)
    assert [len(x.support) for x in eps]==[3, 3, 4]
    with pytest.raises(FsicError, match='differ'): collate(eps)
    rows = records(evaluate(dict(told=told, mean=mean), eps, experiment(images)), eps, baseline='told')
    assert [r['map'] for r in rows][0]==100. and rows[1]['map']<=100
    for r in rows:
        assert (r['episodes'], r['queries'], r['shots'], r['protocol'], r['split'], r['split_hash'])==(3, 'all', 1, 'masked', 'small', split.fingerprint())
        assert re.fullmatch('[0-9a-f]{16}', r['supports'])
    json.dumps(rows)
    other = FixedEpisodes(images, split, {**runs, 'a': {**GOOD, 'c0': ['0020']}})
    assert records(evaluate(dict(told=told), other, experiment(images)), other)[0]['supports']!=rows[0]['supports']

def test_every_record_says_which_labels():
    images, split = small_world()
    eps = Episodes(images, split, queries=2)
    row, = records(evaluate(dict(told=told), eps, experiment(images), n=4), eps)
    assert row['split_hash']==split.fingerprint() and 'supports' not in row and row['map']==100.


# --- real label lists, where they are ----------------------------------------------------------------------------------

REAL = dict(coco=('coco_labels.json.gz', 21_066), nuswide=('nuswide81_labels.json.gz', 61_256))

@pytest.fixture(scope='module')
def real(photos):
    "The label lists of COCO and NUS-WIDE, without pictures."
    made = {}
    for name, (file, n) in REAL.items():
        if not (photos/'labels'/file).is_file(): pytest.skip(f'no {photos}/labels/{file}')
        made[name] = read_labels(photos/'labels'/file, name)
        assert len(made[name])==n and made[name].names==EVERY[name]
    return made

def test_category_ids_are_cocos(photos):
    with gzip.open(photos/'labels'/'coco_labels.json.gz', 'rt') as f: assert json.load(f)['category_ids']==COCO_IDS

@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize('shots', [1, 5])
@pytest.mark.parametrize('name', ['coco_52_12_16', 'coco_64_16', 'nuswide_65_16'])
def test_episodes_at_scale(real, name, shots, protocol):
    images = real[name.split('_')[0]]
    for part in [p for p in PARTS if SPLITS[name].labels(p)]:
        split, out = SPLITS[name].restrict(images, shots+4, (part,), protocol)
        if protocol=='masked' or part=='train': assert len(out[part])<6
        eps, task = Episodes(images, split, part, shots, protocol=protocol), split.labels(part)
        foreign = np.setdiff1d(np.arange(len(images.names)), images.index(SPLITS[name].labels(part) if protocol=='masked' else task))
        for e in range(50):
            ep = eps[e]
            ids = np.concatenate([ep.support, ep.query])
            assert len(np.unique(ids))==len(task)*(shots+4)                       # disjoint by image
            assert (ep.y.sum(0)>=shots).all() and (ep.y_query.sum(0)>=4).all()
            assert np.array_equal(ep.y, images.labels[np.ix_(ep.support, images.index(task))])
            if protocol=='strict': assert not images.labels[np.ix_(ids, foreign)].any()

def test_what_a_strict_filter_leaves_is_said(real):
    with pytest.raises(FsicError, match=r'coco, test \(strict\): too few usable images, backpack has 1, frisbee has 1, snowboard has 1, spoon has 3'):
        Episodes(real['coco'], SPLITS['coco_52_12_16'])

def test_some_labels_drawn(real):
    eps = Episodes(real['coco'], SPLITS['coco_64_16'], protocol='masked', ways=5)
    assert len({tuple(eps[e].labels) for e in range(50)})>40 and all(eps[e].y.shape==(5, 5) for e in range(50))

def test_the_measured_file_is_what_the_tool_measures(real, photos, tmp_path):
    subprocess.run([sys.executable, ROOT/'tools'/'protocols.py', '--labels', photos/'labels', '--out', tmp_path/'p.json'], check=True, capture_output=True,
                   env={**os.environ, 'PYTHONPATH': str(ROOT)})
    new, old = read_json(tmp_path/'p.json'), read_json(ROOT/'data'/'results'/'protocols.json')
    if new['coco']['hash']!=old['coco']['hash']: pytest.skip('another cut of the lists than the one whose counts are kept')
    assert new==old
    for name, d in new.items():                                                   # counted once more, image by image
        y, T = real[name].labels, [real[name].names.index(n) for n in d['test']]
        assert d['together'][3][5]==sum(bool(r[T[3]] and r[T[5]]) for r in y)
        own = [n for n in ('backpack', 'sunset') if n in d['test']][0]
        beside = d['company'][own]
        assert beside[1]==sum(bool(r[real[name].names.index(own)] and r[real[name].names.index(beside[0])]) for r in y)

def test_apparel_by_frequency(photos):
    "A stand-in of iMaterialist's form: every picture has a colour and a garment."
    images = read_labels_of_apparel(photos)
    s = split_by_frequency(images, 5, 2, 4)
    assert [len(s.labels(p)) for p in PARTS]==[5, 2, 4] and images.counts()[images.index(s.labels('train'))].min()>=images.counts()[images.index(s.labels('test'))].max()
    for shots in (1, 5): assert (Episodes(images, s, shots=shots, protocol='masked')[7].y.sum(0)>=shots).all()

def read_labels_of_apparel(photos):
    f = photos/'labels'/'apparel11_labels.json.gz'
    if not f.is_file(): pytest.skip(f'no {f}')
    return read_labels(f, 'apparel')


# --- real supports, where they are -------------------------------------------------------------------------------------

def by_label(run, name=str):
    "{image: [labels]} as {label: [images]}."
    out = {}
    for i, labels in run.items():
        for n in labels: out.setdefault(n, []).append(name(i))
    return out

@pytest.fixture(scope='module')
def voc2007(photos):
    f = photos/'labels'/'voc2007_labels.json.gz'
    if not f.is_file(): pytest.skip(f'no {f}')
    with gzip.open(f, 'rt') as g: d = json.load(g)
    ids = list(d['labels'])
    images = ImageSet([f'VOC2007/JPEGImages/{i}.jpg' for i in ids], d['names'], np.array([d['labels'][i] for i in ids])>=0, 'voc2007')
    return images, np.array([i for i, k in enumerate(ids) if d['split'][k]=='test'])

@pytest.mark.parametrize('shots', [1, 5])
def test_published_supports_for_voc(photos, voc2007, tmp_path, shots):
    "Ten published runs: all found, all labels confirmed, every other test image asked about."
    images, test = voc2007
    runs = {r: by_label(run, lambda i: f'{int(i):06d}') for r, run in read_json(photos/'splits'/'voc.json')['runs'].items() if r.startswith(f'{shots}shot_')}
    write_json(tmp_path/'runs.json', runs)
    eps = FixedEpisodes(images, SPLITS['voc_14_6'], read_supports(tmp_path/'runs.json'), pool=test)
    assert (len(eps), eps.shots)==(10, shots)
    usable = np.intersect1d(select(images, VOC_SPLIT.labels('test'), 'masked'), test)
    for ep in eps:
        assert (ep.y.sum(0)>=shots).all() and set(ep.query)==set(usable)-set(ep.support) and len(ep.query)>1000
    rows = records(evaluate(dict(told=told, mean=mean), eps, experiment(images)), eps)
    assert rows[0]['map']==100. and 0<rows[1]['map']<100

def test_laso_supports_by_number(photos, tmp_path):
    "LaSO's file counts images of train2014, which are not here: a list of 82,783 names, labels as the runs say, proves the reading."
    f = photos/'splits'/'coco.json'
    if not f.is_file(): pytest.skip(f'no {f}')
    given = read_json(f)['laso_64_16']['runs']
    y = np.zeros((82_783, 80), dtype=bool)
    for run in given.values():
        for label, ids in run.items(): y[ids, int(label)] = True
    y[~y.any(1), 0] = True
    later = np.zeros((4000, 80), dtype=bool)                                   # and pictures to ask about
    later[np.arange(4000), np.random.default_rng(0).integers(0, 80, 4000)] = True
    files = [f'train_{i}.jpg' for i in range(len(y))]
    images = ImageSet(files+[f'val_{i}.jpg' for i in range(4000)], COCO_NAMES, np.concatenate([y, later]), 'coco')
    for shots in (1, 5):
        write_json(tmp_path/'runs.json', {r: run for r, run in given.items() if r.startswith(f'{shots}shot')})
        eps = FixedEpisodes(images, SPLITS['coco_64_16'], read_supports(tmp_path/'runs.json', COCO_NAMES, files), pool=np.arange(len(files), len(images)))
        assert (len(eps), eps.shots)==(10, shots)
        for r, ep in zip(eps.runs, eps):
            assert set(ep.support)=={i for ids in given[r].values() for i in ids} and ep.query.min()>=len(files) and (ep.y.sum(0)>=shots).all()

def test_published_supports_for_nuswide(photos, real, tmp_path):
    "Photos are known by Flickr's number; of the published ones only some are in the list, and the first that is not is named."
    f = photos/'splits'/'nuswide.json'
    if not f.is_file(): pytest.skip(f'no {f}')
    flickr = {p.name.split('_')[1]: p.name for p in real['nuswide'].paths}
    runs = {r: by_label({i: l for i, l in run.items()}, lambda i: flickr.get(i.split('_')[-1][:-4], i)) for r, run in read_json(f)['runs'].items()}
    with pytest.raises(FsicError, match=r'run 1shot_1: image \S+ is not among the 61,256 of nuswide'): FixedEpisodes(real['nuswide'], SPLITS['nuswide_65_16'], runs)
    found = by_label({i: l for run in read_json(f)['runs'].values() for i, l in run.items() if i.split('_')[-1][:-4] in flickr}, lambda i: flickr[i.split('_')[-1][:-4]])
    eps = FixedEpisodes(real['nuswide'], SPLITS['nuswide_65_16'], dict(found={n: sorted(set(ids)) for n, ids in found.items()}), queries=4)
    assert eps[0].y_query.shape==(64, 16) and eps.shots>=1


# --- one support of one's own ----------------------------------------------------------------------

def test_one_run_has_no_interval():
    "One support and one test set: a mean average precision, and nothing to make an interval of."
    features = torch.randn(12, 9, 16, generator=torch.Generator().manual_seed(0))
    class Store:
        meta = {}
        def __len__(self): return 12
        def __getitem__(self, ids): return features[torch.as_tensor(np.asarray(ids))]
        def mean_of(self, ids): return self[ids].mean(-2)
    y = np.zeros((12, 2), bool)
    y[:7, 0] = y[5:, 1] = True
    images = ImageSet([f'{i}.jpg' for i in range(12)], ['good', 'defect'], y, 'own')
    run = dict(good=['0.jpg', '1.jpg'], defect=['10.jpg', '11.jpg'])
    eps = FixedEpisodes(images, LabelSplit('own', [], [], images.names), dict(mine=run))
    exp = SimpleNamespace(features=Store(), words=torch.randn(2, 8))
    row, = records(evaluate(dict(simpleshot=simpleshot(torch.zeros(16))), eps, exp), eps)
    assert row['episodes']==1 and 0<row['map']<=100 and row['map_ci95'] is None
    assert row['positives']==dict(good=5, defect=5) and row['chance']==pytest.approx(100*chance_level(5, 8).item(), abs=1e-3)
