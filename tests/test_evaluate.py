"All methods see the same episodes, whatever the batches; records and tables say what was measured."
import time, types
import numpy as np, pytest, torch
from fsic_nb.core import FsicError
from fsic_nb.data import ImageSet, LabelSplit
from fsic_nb.episodes import Episodes
from fsic_nb.evaluate import evaluate, label_table, records, report, table, words_only
from fsic_nb.metrics import average_precision, chance_level, episode_metrics, paired_interval
from fsic_nb.show import show_results
from fsic_nb.support import load_episodes, simpleshot

N_IMAGES, N_LABELS, L, C, W = 120, 6, 4, 8, 5


class Store:
    "Local features in memory that show their labels, and how often each image was fetched."
    def __init__(self, labels):
        gen = np.random.default_rng(0)
        x = labels@gen.normal(size=(N_LABELS, C))
        self.x = torch.from_numpy(x[:, None]+gen.normal(size=(len(labels), L, C))).float()
        self.fetched = np.zeros(len(labels), int)
    def __len__(self): return len(self.x)
    def __getitem__(self, ids): return self.x[torch.as_tensor(ids)]
    def mean_of(self, ids):
        np.add.at(self.fetched, np.asarray(ids), 1)
        return self[ids].mean(-2)


@pytest.fixture
def exp():
    gen = np.random.default_rng(1)
    names = [f'label {i}' for i in range(N_LABELS)]
    labels = gen.random((N_IMAGES, N_LABELS))<.25
    labels[np.arange(N_IMAGES), np.arange(N_IMAGES)%N_LABELS] = True
    images = ImageSet([f'{i}.jpg' for i in range(N_IMAGES)], names, labels, 'toy')
    words = torch.randn(N_LABELS, W, generator=torch.Generator().manual_seed(2))
    return types.SimpleNamespace(images=images, split=LabelSplit('toy', [], [], names), features=Store(labels), words=words)

def episodes(exp, shots=1): return Episodes(exp.images, exp.split, 'test', shots=shots, queries=2)

def guess(support): return lambda query: query.means[..., :support.y.shape[-1]]

METHODS = dict(simpleshot=simpleshot(torch.zeros(C)), guess=guess)


@pytest.mark.parametrize('batch', [None, 1, 3, 7])
def test_the_numbers_are_those_of_one_episode_after_the_other(exp, batch):
    eps = episodes(exp)
    res = evaluate(METHODS, eps, exp, n=7, batch=batch)
    assert list(res)==list(METHODS) and all(r['seconds']>0 for r in res.values())
    for e in range(7):
        support, query, y = load_episodes(exp, [eps[e]])
        for name, method in METHODS.items():
            want = episode_metrics(method(support)(query), y)
            assert {k for k in res[name] if k!='seconds'}==want.keys()
            for k, v in want.items():
                assert res[name][k].shape==(7, *v.shape[1:])
                assert res[name][k][e]==pytest.approx(v[0], abs=1e-6, nan_ok=True), k


@pytest.mark.parametrize('cuts', [(0, 1, 7), (0, 4, 5, 7), (3, 7)])
def test_episodes_may_be_scored_in_several_calls(exp, cuts):
    whole = evaluate(METHODS, episodes(exp), exp, n=7, batch=3)
    for start, stop in zip(cuts, cuts[1:]):
        part = evaluate(METHODS, episodes(exp), exp, n=stop-start, batch=3, start=start)
        for name, r in part.items():
            for k in set(r)-{'seconds'}: assert r[k].tobytes()==whole[name][k][start:stop].tobytes(), k


@pytest.mark.parametrize('kw', [dict(start=-1), dict(n=0), dict(start=5, n=-2)])
def test_no_episode_is_an_error(exp, kw):
    with pytest.raises(FsicError, match='there is none'): evaluate(METHODS, episodes(exp), exp, **kw)


def test_no_image_is_fetched_again_for_another_method_or_episode(exp):
    evaluate({str(i): METHODS['simpleshot'] for i in range(3)}, episodes(exp), exp, n=20, batch=2)
    # as support for its mean and as query for its direction, and one image each to see what a row looks like
    assert (exp.features.fetched<=4).all()
    assert (exp.features.fetched>2).sum()<=2


def test_no_gradient_is_kept(exp):
    seen = []
    def method(support):
        seen.append(torch.is_grad_enabled())
        return guess(support)
    evaluate(dict(m=method), episodes(exp), exp, n=2)
    assert seen and not any(seen)


def test_records(exp):
    eps = episodes(exp)
    res = evaluate(METHODS, eps, exp, n=9)
    base, other = records(res, eps)
    d, ci = paired_interval(res['guess']['map'], res['simpleshot']['map'])
    assert (other['diff'], other['diff_ci95'], other['baseline'])==(round(100*d, 3), round(100*ci, 3), 'simpleshot')
    assert (base['method'], base['diff'], base['diff_ci95'], base['episodes'])==('simpleshot', 0., 0., 9)
    assert base['map']==round(100*res['simpleshot']['map'].mean(), 3)
    assert base['split_hash']==exp.split.fingerprint() and 'supports' not in base
    assert 'diff' not in records(res, eps, baseline='absent')[0]
    one = records(evaluate(METHODS, eps, exp, n=1), eps)[1]
    assert (one['map_ci95'], one['diff_ci95'], one['episodes'])==(None, None, 1) and one['diff'] is not None
    assert '±' not in table([one])
    said = []
    report([one], time.perf_counter(), said.append)
    assert '1 episode, seed 0; no interval' in said[0]
    assert len(show_results([one]).axes)==1                  # a figure without the line of an interval


def test_records_of_labels(exp):
    "AP of a label is its mean over the episodes that ask about it, the chance level is that of the episodes."
    three = LabelSplit('three', [], [], [exp.images.names[:2], exp.images.names[2:5], exp.images.names[1:3]])
    eps = Episodes(exp.images, three, 'test', queries=2, protocol='masked')
    row = records(evaluate(METHODS, eps, exp, n=8, batch=4), eps, 'guess')[0]
    assert list(row['ap'])==list(row['positives'])==exp.images.names[:5]
    ap, positives, chance = {n: [] for n in row['ap']}, {n: [] for n in row['ap']}, []
    for e in range(8):
        support, query, y = load_episodes(exp, [eps[e]])
        s, names = METHODS['simpleshot'](support)(query)[0], [exp.images.names[c] for c in eps[e].labels]
        for i, n in enumerate(names):
            ap[n].append(average_precision(s[:, i], y[0, :, i]).item())
            positives[n].append(y[0, :, i].sum().item())
        chance.append(np.mean([chance_level(k, y.shape[1]).item() for k in y[0].sum(0)]))
    for n in ap:
        assert row['ap'][n]==pytest.approx(100*np.mean(ap[n]), abs=1e-3)
        assert row['positives'][n]==pytest.approx(np.mean(positives[n]), abs=.01)
    assert row['chance']==pytest.approx(100*np.mean(chance), abs=1e-3)
    assert len({len(ap[n]) for n in ap})>1                                   # some are asked more often


def test_a_number_that_says_nothing_is_refused(exp):
    one = LabelSplit('one', [], [], exp.images.names[:1])
    with pytest.raises(FsicError, match='one label alone, so every query carries it and the mAP is 100 %'):
        Episodes(exp.images, one, protocol='masked')
    fine = Episodes(exp.images, one, protocol='masked', negatives=5)
    row = records(evaluate(METHODS, fine, exp, n=6), fine)[0]
    assert row['negatives']==5 and 0<row['map'] and row['chance']<60
    dense = ImageSet(exp.images.paths, exp.images.names, np.ones_like(exp.images.labels), 'dense')
    eps = Episodes(dense, exp.split, queries=2)
    with pytest.raises(FsicError, match='dense: every query carries every label'): evaluate(METHODS, eps, exp, n=3)


def test_unknown_queries_count_for_nothing(exp):
    "The metrics of an episode are those of each label on the queries for which it is known."
    unknown = (np.random.default_rng(5).random(exp.images.labels.shape)<.3)&~exp.images.labels
    images = ImageSet(exp.images.paths, exp.images.names, exp.images.labels, 'toy', unknown=unknown)
    eps, plain = Episodes(images, exp.split, queries=2), episodes(exp)
    res = evaluate(METHODS, eps, exp, n=5, batch=2)
    for e in range(5):
        assert np.array_equal(eps[e].query, plain[e].query) and np.array_equal(~eps[e].known_query, unknown[np.ix_(eps[e].query, eps[e].labels)])
        support, query, y = load_episodes(exp, [eps[e]])
        s, k = METHODS['guess'](support)(query)[0], eps[e].known_query
        want = [average_precision(s[k[:, i], i], y[0, k[:, i], i]).item() for i in range(N_LABELS)]
        assert res['guess']['map'][e]==pytest.approx(np.mean(want)) and np.allclose(res['guess']['ap'][e], want)
    assert not np.allclose(res['guess']['map'], evaluate(METHODS, plain, exp, n=5)['guess']['map'])


def test_table_and_report(exp):
    rows = [r for k in (1, 2) for r in records(evaluate(METHODS, episodes(exp, k), exp, n=4), episodes(exp, k))]
    head, line, level, base, other = table(rows).splitlines()
    assert level.split()==['chance', 'level', f"{rows[0]['chance']:.1f}", f"{rows[2]['chance']:.1f}"]
    old = [{k: v for k, v in r.items() if k not in ('chance', 'ap', 'positives')} for r in rows]
    assert table(old).splitlines()==[head, line, base, other] and label_table(old)==''
    assert head.split()==['method', '1-shot', 'mAP', '%', 'diff', '2-shot', 'mAP', '%', 'diff'] and set(line)=={'-'}
    assert base.startswith('ML-SimpleShot') and base.count('±')==2          # no difference to itself
    assert other.startswith('guess') and other.count('±')==4
    assert f"{rows[1]['diff']:+.1f} ± {rows[1]['diff_ci95']:.1f}" in other
    assert {len(l) for l in (head, line, level, base, other)}=={len(head)}         # columns are in line
    said = []
    report(rows, time.perf_counter(), said.append)
    assert table(rows) in said[0] and label_table(rows) in said[0] and 'toy, strict filter, 4 episodes, seed 0' in said[0]


def test_words_only_sees_no_support_image(exp):
    from fsic_nb.embed import Embed, score
    torch.manual_seed(0)
    embed = Embed(C, W, 4).eval()
    method = words_only(types.SimpleNamespace(embed=embed))
    support, query, _ = load_episodes(exp, [episodes(exp)[0]])
    del support.x
    with torch.no_grad():
        want = score(embed.visual(query.means), embed.word(support.g))
        assert torch.equal(method(support)(query), want)
