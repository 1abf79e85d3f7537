"What must hold for every episode, for any seed, density of labels and number of shots."
import json, os, re, subprocess, sys

import numpy as np, pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st

from fsic_nb.core import FsicError, fingerprint, rng
from fsic_nb.data import ImageSet, LabelSplit, select
from fsic_nb.episodes import Episodes, assign_images, labels_of, members_of, _draw, collate

COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
ARRAYS = ('support', 'query', 'labels', 'y', 'y_query')


def image_set(y, name='made'):
    y = np.asarray(y, dtype=bool)
    return ImageSet([f'{i}.jpg' for i in range(len(y))], [f'c{c}' for c in range(y.shape[1])], y, name)

def same(a, b): return (a.e, a.task)==(b.e, b.task) and all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ARRAYS)

@st.composite
def worlds(draw):
    "Images with labels of very different frequency, their split in two parts, and what to ask of them."
    n, c = draw(st.integers(40, 250)), draw(st.integers(4, 10))
    density, skew = draw(st.sampled_from([.03, .1, .3, .6])), draw(st.sampled_from([0., 1.]))
    r = np.random.default_rng(draw(st.integers(0, 2**32-1)))
    y = r.random((n, c)) < density/np.arange(1, c+1)**skew
    y[np.arange(n), r.integers(0, c, n)] = True
    images, k = image_set(y), draw(st.integers(2, c))
    tasks = draw(st.sampled_from([1, 2]))
    head = images.names[:k]
    split = LabelSplit('two', images.names[k:], [], [head] if tasks==1 or k<4 else [head[:k//2], head[k//2:]])
    kw = dict(part='test', shots=draw(st.integers(1, 6)), queries=draw(st.integers(1, 5)), seed=draw(st.integers(0, 2**40)),
              protocol=draw(st.sampled_from(['strict', 'masked'])), ways=draw(st.sampled_from([None, None, 2])))
    return images, split, kw

def ask(world):
    images, split, kw = world
    try: return Episodes(images, split, **kw)
    except FsicError: return None


# --- invariants --------------------------------------------------------------------------------------------------------

@COMMON
@given(worlds(), st.integers(0, 10**6))
def test_every_episode_keeps_the_rules(world, e):
    images, split, kw = world
    eps = ask(world)
    assume(eps is not None)
    try: ep = eps[e]
    except FsicError as err:                        # a corner: said, not papered over
        assert re.search(r'draws failed', str(err)); return
    K, Q, task = kw['shots'], kw['queries'], split.tasks('test')[e%len(split.tasks('test'))]
    N = kw['ways'] or len(task)
    assert ep.support.shape==(N*K,) and ep.query.shape==(N*Q,) and ep.labels.shape==(N,)
    assert ep.y.shape==(N*K, N) and ep.y_query.shape==(N*Q, N)
    assert {getattr(ep, k).dtype for k in ('support', 'query', 'labels')}=={np.dtype('int64')} and ep.y.dtype==ep.y_query.dtype==bool
    used = np.concatenate([ep.support, ep.query])
    assert len(np.unique(used))==N*(K+Q)                                       # disjoint by image
    assert np.array_equal(ep.y, images.labels[np.ix_(ep.support, ep.labels)])  # every label an image carries counts
    assert np.array_equal(ep.y_query, images.labels[np.ix_(ep.query, ep.labels)])
    assert (ep.y.sum(0)>=K).all() and (ep.y_query.sum(0)>=Q).all()
    assert ep.y[np.arange(N*K), np.repeat(np.arange(N), K)].all()              # row i*K+k was drawn for label i
    assert ep.y_query[np.arange(N*Q), np.repeat(np.arange(N), Q)].all()
    names = [images.names[c] for c in ep.labels]
    assert len(set(names))==N and names==[n for n in task if n in names]       # labels of the task, in its order
    assert np.isin(used, select(images, task, kw['protocol'])).all()
    if kw['protocol']=='strict':                                               # said once more, without `select`
        foreign = [c for c, n in enumerate(images.names) if n not in task]
        assert not images.labels[np.ix_(used, foreign)].any()

@COMMON
@given(worlds(), st.lists(st.integers(0, 500), min_size=2, max_size=5, unique=True))
def test_random_access_is_sequential_access(world, numbers):
    eps, again = ask(world), ask(world)
    assume(eps is not None)
    def get(x, e):
        try: return x[e]
        except FsicError as err: return str(err)
    first = {e: get(eps, e) for e in sorted(numbers)}
    for e in numbers[::-1]:
        a, b = first[e], get(again, e)
        assert a==b if isinstance(a, str) else same(a, b)

@COMMON
@given(worlds())
def test_fingerprint_names_the_episodes(world):
    images, split, kw = world
    eps = ask(world)
    assume(eps is not None)
    assert eps.fingerprint()==ask(world).fingerprint()
    y = images.labels.copy(); y[0, 0] ^= True
    for other in ((images, split, {**kw, 'seed': kw['seed']+1}), (image_set(y), split, kw)):
        new = ask(other)
        assert new is None or new.fingerprint()!=eps.fingerprint()

@COMMON
@given(worlds())
def test_too_few_is_an_error_with_the_numbers(world):
    "Whenever a label of the task has fewer than K+Q usable images, val and test refuse; train leaves it out and says so."
    images, split, kw = world
    need, few = kw['shots']+kw['queries'], {}
    for t in split.tasks('test'):
        n = images.labels[select(images, t, kw['protocol'])].sum(0)
        few.update({l: int(n[images.names.index(l)]) for l in t if n[images.names.index(l)]<need})
    if few:
        with pytest.raises(FsicError) as e: Episodes(images, split, **kw)
        for l, k in few.items(): assert re.search(rf'{l} has {k}\b', str(e.value))
        assert f'= {need}' in str(e.value)
    swapped = LabelSplit('two', split.test, [], split.train)
    try: eps = Episodes(images, swapped, **{**kw, 'part': 'train'})
    except FsicError: return
    assert eps.left_out==few
    for e in range(3):
        assert not {images.names[c] for c in eps[e].labels} & set(few)


# --- the same numbers everywhere ---------------------------------------------------------------------------------------

def fixed():
    "A pool that depends on no random generator."
    y = np.zeros((240, 8), dtype=bool)
    for i in range(240): y[i, i%8] = True; y[i, (i//8)%8] |= i%3==0; y[i, (i*i)%8] |= i%5==0
    images = image_set(y)
    return images, LabelSplit('fixed', [], [], images.names)

GOLDEN = [140, 220, 9, 105, 50, 74, 30, 115, 33, 116, 171, 234, 51, 110, 15, 215, 100, 155, 144, 227, 92, 29, 62, 223]

def test_golden_numbers():
    "If this fails, old results can no longer be repeated: NumPy's stream, `rng` or the sampler has changed."
    ep = Episodes(*fixed(), shots=2, queries=1, seed=3)[731]
    assert ep.support.tolist()+ep.query.tolist()==GOLDEN

def test_another_process_draws_the_same():
    code = ('import json, test_episodes as t; from fsic_nb.episodes import Episodes; '
            'ep = Episodes(*t.fixed(), shots=5)[99]; print(json.dumps([ep.support.tolist(), ep.query.tolist()]))')
    here = os.path.dirname(os.path.abspath(__file__))
    out = subprocess.run([sys.executable, '-c', code], cwd=here, capture_output=True, text=True, check=True, env={**os.environ, 'PYTHONHASHSEED': '7'})
    ep = Episodes(*fixed(), shots=5)[99]
    assert json.loads(out.stdout)==[ep.support.tolist(), ep.query.tolist()]

def test_seed_part_and_number_all_matter():
    images, split = fixed()
    a = Episodes(images, split)[0]
    assert not same(a, Episodes(images, split, seed=1)[0])
    assert not np.array_equal(a.support, Episodes(images, split)[1].support)
    assert not np.array_equal(a.support, Episodes(images, LabelSplit('fixed', [], images.names, []), 'val')[0].support)
    many = [tuple(Episodes(images, split, seed=s)[e].support) for s in range(3) for e in range(30)]
    assert len(set(many))==90

def test_global_random_state_is_neither_used_nor_touched():
    np.random.seed(0); a = Episodes(*fixed())[5]
    np.random.seed(1); before = np.random.get_state()[1].copy(); b = Episodes(*fixed())[5]
    assert same(a, b) and np.array_equal(before, np.random.get_state()[1])

def test_draws_are_uniform():
    "All ordered pairs out of five, 20 of them, are equally likely: within 5 standard deviations."
    r, n = rng('uniform'), 20_000
    counts = np.zeros((5, 5))
    for _ in range(n): counts[tuple(_draw(r, np.arange(5), 2))] += 1
    assert np.trace(counts)==0
    off = counts[~np.eye(5, dtype=bool)]
    assert np.abs(off-n/20).max() < 5*np.sqrt(n/20)

def test_every_usable_image_gets_its_turn():
    images, split = fixed()
    eps, seen = Episodes(images, split), set()
    for e in range(150): seen |= set(eps[e].support.tolist()) | set(eps[e].query.tolist())
    assert seen==set(range(240))


# --- corners, left-out labels, wrong requests --------------------------------------------------------------------------

def by_hand(*rows): return image_set(np.concatenate([np.repeat([row], n, axis=0) for n, row in rows]))
FARM = by_hand((12, [1,0,0]), (12, [0,1,0]), (3, [0,0,1]), (2, [1,0,1]))
def one(images, part='test'): return LabelSplit('one', **{**dict(train=[], val=[], test=[]), part: images.names})

def test_exact_pool_is_used_up():
    "As many images as the episode needs: possible, so it is found, and every image is used once."
    images = by_hand((5, [1,0]), (5, [0,1]))
    ep = Episodes(images, one(images))[0]
    assert sorted(np.concatenate([ep.support, ep.query]).tolist())==list(range(10))

def test_a_corner_is_drawn_again():
    "A has 6 images, B 7, three in common, each needs 5 of the 10: half of the greedy draws fail, no episode does."
    images = by_hand((3, [1,0]), (3, [1,1]), (4, [0,1]))
    eps = Episodes(images, one(images))
    for e in range(100): assert len(set(np.concatenate([eps[e].support, eps[e].query]).tolist()))==10

def test_the_label_with_fewest_images_left_goes_next():
    "A takes its only three, which leaves B four of its seven: B must now go before C, which has six. Then no draw is ever stuck."
    carry = dict(a=range(3), b=range(7), c=[3, 4, 5, 7, 8, 9])
    M = np.array([[i in carry[l] for l in 'abc'] for i in range(10)])
    for e in range(200):
        rows, short = assign_images(labels_of(M), members_of(M), 3, rng('left', e))
        assert short is None and len(set(rows.ravel().tolist()))==9

def plain_assign(y, need, r, which):
    "The same rule with a table of free images, label after label."
    M = y[:, which]
    N, rows, free, left = len(which), np.empty((len(which), need), np.int64), np.ones(len(y), bool), M.sum(0).astype(float)
    tie = r.random(N)
    for _ in range(N):
        i = int((left+tie).argmin())
        mine = np.flatnonzero(M[:, i]&free)
        if len(mine)<need: return None, (i, len(mine))
        rows[i] = _draw(r, mine, need)
        free[rows[i]] = False
        left -= M[rows[i]].sum(0)
        left[i] = np.inf
    return rows, None

@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 8), st.integers(1, 50), st.integers(1, 5), st.sampled_from([.1, .3, .6]))
def test_images_are_assigned_by_the_plain_rule(seed, N, n, need, share):
    r = np.random.default_rng(seed)
    y, which = r.random((n, N))<share, np.sort(r.permutation(N)[:r.integers(1, N+1)])
    got = assign_images(labels_of(y), members_of(y[:, which]), need, rng('plain', seed), which)
    want = plain_assign(y, need, rng('plain', seed), which)
    assert got[1]==want[1] and np.array_equal(got[0], want[0]), (got, want)

def test_an_image_with_a_left_out_label_stays_with_the_label_hidden():
    assert Episodes(FARM, one(FARM, 'train'), 'train').left_out=={}     # c2 has 3+2 images, 1+4 are needed
    eps = Episodes(FARM, one(FARM, 'train'), 'train', queries=5)
    assert eps.left_out=={'c2': 5}
    seen = {i for e in range(80) for i in eps[e].support.tolist()}
    assert {27, 28}<=seen and not seen & {24, 25, 26}          # cow and cat: used as cat; cow alone: not used
    assert all(eps[e].y.shape==(2, 2) for e in range(5))

@pytest.mark.parametrize('kw, says', [
    (dict(queries=5), 'made, test (strict): too few usable images, c2 has 5; an episode needs 1 support + 5 query = 6 of each label'),
    (dict(shots=500), 'c0 has 14, c1 has 12, c2 has 5; an episode needs 500 support'),
    (dict(shots=500, part='train'), 'no label has the 500 support + 4 query = 504 usable images'),
    (dict(ways=4), 'ways=4, but task 0 (c0, c1, c2) has 3 labels'),
    (dict(shots=-1), 'shots=-1: expected a whole number, at least 0'),
    (dict(queries=0), 'queries=0: expected'), (dict(seed=-1), 'seed=-1: expected'), (dict(ways=0), 'ways=0: expected'),
    (dict(protocol='lax'), "no protocol is called 'lax'"), (dict(part='tset'), "no part is called 'tset'")])
def test_wrong_requests(kw, says):
    part = kw.get('part', 'test')
    with pytest.raises(FsicError, match=re.escape(says)) as e: Episodes(FARM, one(FARM, part if part in ('train', 'val') else 'test'), **kw)
    assert '\n' not in str(e.value)

@pytest.mark.parametrize('images, says', [
    (by_hand((12, [1,1])), '2 labels need 2*9 = 18 different images, but task 0 (c0, c1) has 12'),
    (by_hand((12, [1,1,0]), (30, [0,0,1])), '20 draws failed')])
def test_what_cannot_work_fails_at_once(images, says):
    with pytest.raises(FsicError, match=re.escape(says)): Episodes(images, one(images), shots=5)

def test_unknown_labels_and_missing_parts():
    with pytest.raises(FsicError, match="no label is called 'c9'"): Episodes(FARM, LabelSplit('s', [], [], ['c9']))
    with pytest.raises(FsicError, match='has no val labels'): Episodes(FARM, one(FARM), 'val')
    for e in (-1, 1.5, 'x', slice(3)):
        with pytest.raises(FsicError, match='numbered 0, 1, 2'): Episodes(FARM, one(FARM))[e]


# --- batches -----------------------------------------------------------------------------------------------------------

def test_collate_stacks():
    eps = Episodes(*fixed(), shots=2)
    b = collate(eps[e] for e in (4, 9, 1))
    assert b.e.tolist()==[4, 9, 1] and b.task.tolist()==[0, 0, 0] and (b.shots, b.queries)==(2, 4)
    for k in ARRAYS:
        for i, e in enumerate((4, 9, 1)): assert np.array_equal(getattr(b, k)[i], getattr(eps[e], k))

@pytest.mark.parametrize('kw', [dict(shots=2), dict(queries=2), dict(ways=4)])
def test_collate_refuses_different_shapes(kw):
    with pytest.raises(FsicError, match='episodes 0 and 0 differ'): collate([Episodes(*fixed())[0], Episodes(*fixed(), **kw)[0]])


# --- negatives and unknown labels ------------------------------------------------------------------------------------------

@COMMON
@given(worlds(), st.integers(0, 10**6), st.integers(1, 5), st.booleans())
def test_negatives_carry_none_of_the_labels_and_change_nothing_else(world, e, n, some_unknown):
    images, split, kw = world
    bare = np.random.default_rng(e).random(len(images))<.3
    y = images.labels&~bare[:, None]                            # images without any label
    unknown = (np.random.default_rng(e+1).random(y.shape)<.1)&~y if some_unknown else None
    images = ImageSet(images.paths, images.names, y, 'made', unknown=unknown)
    eps = ask((images, split, kw))
    assume(eps is not None)
    try: ep = eps[e]
    except FsicError: return
    try: more = Episodes(images, split, **kw, negatives=n)[e]
    except FsicError as err:
        assert 'ask for fewer negatives' in str(err); return
    k = len(ep.query)
    assert np.array_equal(more.support, ep.support) and np.array_equal(more.query[:k], ep.query)
    others = more.query[k:]
    task = images.index(split.tasks('test')[e%len(split.tasks('test'))])
    assert len({*others})==n and not {*others}&{*more.support, *more.query[:k]}
    assert not y[np.ix_(others, ep.labels)].any() and not more.y_query[k:].any()
    if unknown is None: assert more.known is more.known_query is None
    else:
        assert np.array_equal(more.known_query, ~unknown[np.ix_(more.query, ep.labels)]) and more.known_query[k:].all()
        assert np.array_equal(more.known, ~unknown[np.ix_(more.support, ep.labels)])
    if kw['protocol']=='strict': assert not np.delete(y[others], task, 1).any()


def test_negatives_come_from_where_the_protocol_allows():
    "Strict: images without any label, and those of the task's other labels; masked: those of foreign labels, too."
    y = np.zeros((40, 3), bool)
    y[:12, 0] = y[12:24, 1] = y[24:30, 2] = True                # c2 is foreign; the last ten carry nothing
    images, split = image_set(y), LabelSplit('s', [], [], ['c0', 'c1'])
    def others(**kw): return {i for e in range(30) for i in Episodes(images, split, negatives=3, **kw)[e].query[-3:]}
    assert others()=={*range(30, 40)} and others(protocol='masked')=={*range(24, 40)}
    assert others(ways=1)=={*range(24), *range(30, 40)}
    with pytest.raises(FsicError, match='made: an episode needs 11 images without any of its labels, but 10 are there'):
        Episodes(images, split, negatives=11)
    with pytest.raises(FsicError, match='negatives=-1: expected a whole number'): Episodes(images, split, negatives=-1)


def test_fingerprints_of_episodes_without_negatives_are_as_they_were():
    images, split = image_set(np.eye(4).repeat(20, 0)), LabelSplit('s', [], [], ['c0', 'c1'])
    plain = Episodes(images, split, shots=2)
    assert plain.fingerprint()==fingerprint(images.fingerprint(), split.fingerprint(), 'test', 2, 4, 0, 'strict', None)
    more = [Episodes(images, split, shots=2, protocol='masked', negatives=n).fingerprint() for n in (0, 1, 2)]
    assert len({*more})==3


@pytest.mark.parametrize('part', ['val', 'test'])
def test_one_label_alone_says_nothing(part):
    images = image_set(np.eye(2).repeat(20, 0))
    split = LabelSplit('s', [], **{'val': [], 'test': [], part: ['c0']})
    with pytest.raises(FsicError, match='one label alone, so every query carries it and the mAP is 100 % whatever is scored'):
        Episodes(images, split, part)
    with pytest.raises(FsicError, match='one label alone'): Episodes(images, LabelSplit('s', [], [], images.names), ways=1)
    assert Episodes(images, split, part, protocol='masked', negatives=4)[0].y_query.sum()==4
    assert len(Episodes(images, LabelSplit('s', ['c0'], [], []), 'train')[0].query)==4


def test_collate_keeps_what_is_known():
    y = np.eye(3).repeat(20, 0).astype(bool)
    unknown = (np.random.default_rng(0).random(y.shape)<.4)&~y
    images = ImageSet([f'{i}.jpg' for i in range(60)], ['a', 'b', 'c'], y, 'made', unknown=unknown)
    eps = Episodes(images, LabelSplit('s', [], [], images.names))
    batch = collate([eps[0], eps[1]])
    assert batch.known.shape==(2, 3, 3) and np.array_equal(batch.known_query[1], eps[1].known_query)
