"""Numbers that stay right: golden ones of every method, and a table of what must not change them.

The task and the golden numbers are made by golden.py; `python tests/golden.py --write` keeps new ones.
"""
import numpy as np, pytest, torch
from sklearn.linear_model import Ridge

import golden
from fsic_nb.baselines import TRAINING_FREE
from fsic_nb.confidence import LISTED, STRENGTH, expected_f1, fit_curves
from fsic_nb.core import FsicError, fingerprint
from fsic_nb.data import ImageSet, LabelSplit
from fsic_nb.embed import cm_loss, score
from fsic_nb.evaluate import evaluate, records
from fsic_nb.metrics import episode_metrics, interval
from fsic_nb.model import PaperConfig
from fsic_nb.named import NameDials, learn_correction
from fsic_nb.partial import solve_weighted
from fsic_nb.recipes import MADE_OF_PARTS, RECIPES
from fsic_nb.support import Features, Support, load_episodes


@pytest.fixture(scope='module')
def exp(): return golden.make_experiment()

@pytest.fixture(scope='module')
def methods(exp): return golden.make_methods(exp)


# --- golden numbers ----------------------------------------------------------------------------------------------------

def tolerance(path): return 1e-3 if path.startswith('/refined') else 1e-4         # its rows without weight cost digits in 32 bits

@pytest.mark.parametrize('kind', golden.KINDS)
def test_the_numbers_are_those_that_were_kept(kind, exp, methods):
    got, want = golden.compute(kind, exp, methods), golden.kept(kind)
    by_name = isinstance(want, dict) and list(got)==list(want)
    parts = [(f'/{k}', got[k], want[k]) for k in want] if by_name else [('', got, want)]
    wrong = [d for at, a, b in parts for d in golden.differences(a, b, at, tolerance(at))]
    assert not wrong, f'{len(wrong)} differ, such as {wrong[:5]}; if that is meant: python tests/golden.py --write'

def test_every_method_is_there(methods):
    assert {*TRAINING_FREE, *RECIPES, *MADE_OF_PARTS}<={*golden.kept('scores')}=={*methods}=={r['method'] for r in golden.kept('records')}
    assert {c.kind for c in golden.CONFIGS.values()}=={'paper', 'refined', 'relation', 'laso'} and {*golden.LEARN}<={*RECIPES}

def test_a_difference_is_seen():
    want = golden.kept('partial')
    for change in (lambda d: d['no']['b'].__setitem__(0, d['no']['b'][0]+.001), lambda d: d['no']['b'].pop(), lambda d: d.pop('no'),
                   lambda d: d['no']['left'][0].__setitem__(0, None), lambda d: d['no'].update(b=None)):
        got = golden.kept('partial')
        change(got)
        assert golden.differences(got, want)
    assert not golden.differences(golden.kept('partial'), want)


# --- every number of a record, once more, by hand ----------------------------------------------------------------------

def test_a_record_says_what_was_measured(exp, methods):
    "Each number by its own path: a mean that is another metric's, or a difference of the wrong sign, cannot be right twice."
    some, eps = {n: methods[n] for n in ('ridge', 'protonet', 'paper-mean', 'refined, mean query')}, exp.episodes('test', 1)
    rows = {r['method']: r for r in records(evaluate(some, eps, exp, n=6), eps, baseline='ridge')}
    found = {n: [] for n in some}
    for e in range(6):
        support, query, y = load_episodes(exp, [eps[e]])
        with torch.no_grad():
            for n, m in some.items(): found[n].append(episode_metrics(m(support)(query)[0], y[0]))
    def all_of(n, k): return np.array([m[k] for m in found[n]])
    for n, r in rows.items():
        for k in ('map', 'micro_ap', 'macro_f1', 'macro_f1_pr', 'micro_f1'): assert r[k]==pytest.approx(100*all_of(n, k).mean(), abs=2e-3), k
        assert r['map_ci95']==pytest.approx(100*interval(all_of(n, 'map'))[1], abs=2e-3)
        mean, half = interval(all_of(n, 'map')-all_of('ridge', 'map'))
        assert (r['diff'], r['diff_ci95'])==(pytest.approx(100*mean, abs=2e-3), pytest.approx(100*half, abs=2e-3))
        assert r['diff']==pytest.approx(r['map']-rows['ridge']['map'], abs=3e-3)
    assert rows['ridge']['diff']==0 and min(abs(r['diff']) for n, r in rows.items() if n!='ridge')>.2
    assert len({round(rows['protonet'][k], 1) for k in ('map', 'micro_ap', 'macro_f1', 'macro_f1_pr', 'micro_f1')})==5


# --- what must not change a score --------------------------------------------------------------------------------------

class Rows:
    "A support and queries of a few episodes as plain tables, to be turned about."
    def __init__(self, exp, episodes):
        batch = [(np.asarray(getattr(e, k)) for k in ('support', 'query', 'labels', 'y')) for e in episodes]
        self.support, self.query, self.labels, self.y = (np.stack(t) for t in zip(*batch))
        self.exp = exp
        self.f, self.fq = exp.features[self.support], exp.features[self.query]

    def ask(self, method, support=slice(None), query=slice(None), labels=slice(None), places=slice(None), e=slice(None), extra=None):
        "Scores (E, Q, N) where images, labels and places come in another order, or often, or alone."
        y, numbers, words = self.y[:, support][:, :, labels], self.labels[:, labels], self.exp.words
        if extra is not None:
            y = np.concatenate([y, np.zeros((*y.shape[:2], 1), bool)], -1)
            numbers = np.concatenate([numbers, np.full((len(numbers), 1), extra)], -1)
        s = Support(Features(self.f[:, support][:, :, places][e], ids=self.support[:, support][e]), y[e], words[torch.as_tensor(numbers[e])], numbers[e])
        with torch.no_grad(): return method(s)(Features(self.fq[:, query][:, :, places][e], ids=self.query[:, query][e]))

def order(n, seed=0): return np.random.default_rng(seed).permutation(n)

def support_order(x, m, base): return x.ask(m, support=order(x.y.shape[1])), base
def query_order(x, m, base): return x.ask(m, query=(q := order(x.query.shape[1]))), base[:, q]
def label_order(x, m, base): return x.ask(m, labels=(i := order(x.y.shape[2], 2))), base[..., i]
def place_order(x, m, base): return x.ask(m, places=order(golden.L)), base
def doubled_support(x, m, base): return x.ask(m, support=np.repeat(np.arange(x.y.shape[1]), 2)), base
def label_of_nobody(x, m, base): return x.ask(m, extra=golden.NAMES.index('a'))[..., :-1], base
def episodes_alone(x, m, base): return torch.stack([x.ask(m, e=e) for e in range(len(x.y))]), base
def queries_alone(x, m, base): return torch.cat([x.ask(m, query=[q]) for q in (2, 9)], 1), base[:, [2, 9]]

CHANGES = (support_order, query_order, label_order, place_order, doubled_support, label_of_nobody, episodes_alone, queries_alone)

# Where a score may change, and why. On this task whatever stands here does change, so that no line outlives its reason.
BY_NUMBER = 'the penalty is worth a number of images, so twice as many examples count more'
DIALS = 'its dials learn how strengths depend on the number of positives'
RIVALS = 'the names compete: a label more takes probability of the classes from the others'
LOSS = 'the loss whose change is measured is a mean over all labels, so other local features are kept'
EXCEPTIONS = {
    doubled_support: {
        **{n: BY_NUMBER for n in ('logistic', 'ridge', 'svm', 'ridge-space', 'ridge-name', 'named', 'named-whole', 'named, fresh space')},
        'labelprop': 'a copy is the nearest neighbour of its original, and takes the place of another',
        'localknn': 'a copy fills the nearest local features',
        'laso': 'a pair of copies is a pair, too',
        'paper-best': 'with so many images the model answers that was trained on five examples',
        **{n: DIALS for n in ('refined', 'refined-whole', *(k for k in golden.SWITCHES if k.startswith('refined')))}},
    label_of_nobody: {
        **{n: RIVALS for n in ('named', 'named-whole', 'name-places', 'named, fresh space', 'name-places, fresh space')},
        **{n: LOSS for n in ('paper, exact share', 'paper, iterated share')}},
    place_order: {'oracle': 'true masks are known by place, and stay where they are'},
    queries_alone: {'labelprop': 'it is transductive: queries are neighbours of each other'}}

@pytest.fixture(scope='module')
def asked(exp, methods):
    "Two episodes, and what every method says of them."
    eps = exp.episodes('test', 2)
    x = Rows(exp, [eps[4], eps[5]])
    return x, {n: x.ask(m) for n, m in methods.items()}

@pytest.mark.parametrize('change', CHANGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize('name', golden.kept('scores'))
def test_what_must_not_change_a_score(name, change, asked, methods):
    x, base = asked
    got, want = change(x, methods[name], base[name])
    assert got.shape==want.shape and got.isfinite().all() and want.std()>1e-3
    same = torch.allclose(got, want, atol=5e-3 if name.startswith('refined') else 1e-3, rtol=1e-4)
    why = EXCEPTIONS.get(change, {}).get(name)
    assert same!=bool(why), why or f'{(got-want).abs().max():.2g} apart'

def test_the_table_names_methods_only():
    for table in EXCEPTIONS.values(): assert {*table}<={*golden.kept('scores')}


# --- the same of the tagger --------------------------------------------------------------------------------------------

def found(t, some=None): return t.predict_proba(some or golden.make_readings())

@pytest.mark.parametrize('unlisted', golden.UNLISTED)
def test_what_must_not_change_a_tag(unlisted):
    "Order of examples, of tags, of photos and of places; what is said of an example elsewhere; a photo alone."
    examples, readings = golden.make_examples(), golden.make_readings()
    t = golden.make_tagger(unlisted=unlisted, only=('tag d', 'tag e'))
    want = found(t)
    def same(p, to=None): assert np.allclose(p[want.columns], want if to is None else to, atol=1e-4) and list(p.columns)==sorted(p.columns)
    same(found(golden.make_tagger([examples[i] for i in order(6)], unlisted, only=('tag e', 'tag d'))))
    same(found(t, readings[::-1]), want[::-1])
    alone = np.concatenate([found(t, [r]).to_numpy() for r in readings])
    assert np.allclose(alone, want, atol=1e-6)
    mixed = [golden.Reading(r.name, r.key, r.f[order(golden.L)]) for r in readings]
    same(found(t, mixed))
    twice = [golden.Example(e.name, f'{e.key}{k}', e.f, b'', e.yes, e.no) for e in examples for k in 'ab']
    assert not np.allclose(found(golden.make_tagger(twice, unlisted, only=('tag d', 'tag e'))), want, atol=1e-3)    # two examples count more than one
    assert t.confidence_.thresholds.shape==(6,)

def test_a_tag_of_nobody_changes_no_other():
    "If its name says nothing; a name that says something takes probability of the classes from the others."
    t, more = golden.make_tagger(), golden.make_tagger(only=('tag d', 'tag e'))
    assert not np.allclose(found(more)[t.tags_], found(t), atol=1e-3)
    t, more = golden.make_tagger(words=False), golden.make_tagger(words=False, only=('tag d', 'tag e'))
    assert np.allclose(found(more)[t.tags_], found(t), atol=1e-6)


# --- examples that list only some of their tags ------------------------------------------------------------------------

def rows_of(seed, S=7, N=3, D=5):
    "What names say, vectors, what is to be explained, and weights of which some are 0."
    r = np.random.default_rng(seed)
    s, rest = (torch.from_numpy(r.normal(size=(S, N))).float() for _ in range(2))
    return s, torch.from_numpy(r.normal(size=(S, D))).float(), rest, torch.from_numpy(r.choice([0., .3, 1.], (S, N))).float()

@pytest.mark.parametrize('seed', range(4))
def test_a_left_out_score_is_that_of_a_fit_without_the_row(seed):
    s, v, rest, w = rows_of(seed)
    full = solve_weighted(s, v, rest, w)
    for j in range(len(s)):
        k = torch.arange(len(s))!=j
        want = solve_weighted(s[k], v[k], rest[k], w[k]).correction(s[j:j+1], v[j:j+1])[0]
        some = (w[j]>0)&((w>0).sum(0)>1)
        assert torch.equal(full.left[j].isnan(), ~some) and torch.allclose(full.left[j][some], want[some], atol=1e-4)

@pytest.mark.parametrize('seed', range(4))
def test_weights_count_as_in_scikit_learn(seed):
    "Tag by tag a ridge with the name as a column; a row without weight might not be there; weights 1 are `learn_correction`."
    s, v, rest, w = rows_of(seed)
    dials = NameDials(alpha=.7, doubt=.4)
    got = solve_weighted(s, v, rest, w, dials).correction
    for i in range(w.shape[1]):
        X = np.column_stack([v, dials.doubt**.5*s[:, i]])
        fit = Ridge(dials.alpha).fit(X, rest[:, i], sample_weight=w[:, i])
        assert np.allclose(got(s, v)[:, i], s[:, i].numpy()+fit.predict(X), atol=1e-4) and got.trust[i]==pytest.approx(1+dials.doubt**.5*fit.coef_[-1], abs=1e-4)
    y = rest>0
    ones = solve_weighted(s, v, 2*y.float()-1-s, torch.ones_like(w), dials).correction
    want = learn_correction(s, v, y, dials)
    for k in ('P', 'trust', 'b'): assert torch.allclose(getattr(ones, k), getattr(want, k), atol=1e-4), k

def test_a_curve_is_where_the_slope_of_its_penalised_likelihood_is_zero():
    "Newton's steps end where nothing is left to gain; what is sure is not guessed."
    r = np.random.default_rng(0)
    f, yes = torch.from_numpy(r.normal(size=(3, 9))).float(), torch.from_numpy(r.random((3, 9))<.5)
    prior, on = torch.tensor([[0., .1], [1., -.2], [.5, 0.]]), torch.from_numpy(r.random((3, 9))<.8)
    x, share = fit_curves(f, yes, torch.ones_like(yes), on, prior)
    z = x.double().requires_grad_()
    p = (z[:, :1].exp()*(f.double()-z[:, 1:])).sigmoid()
    loss = -(on*torch.where(yes, p, 1-p).log()).sum()+STRENGTH/2*(z-prior).square().sum()
    assert torch.autograd.grad(loss, z)[0].abs().max()<1e-5
    hits, misses = LISTED
    assert share==pytest.approx(((on&yes).sum().item()+hits)/((on&yes).sum().item()+hits+misses), abs=1e-6)
    some = torch.from_numpy(r.random((3, 9))<.5)|yes
    y, less = fit_curves(f, yes, some, on, prior)
    assert less<share and not torch.allclose(x, y, atol=1e-3)                # a tag that is not listed may be there

def test_the_best_expected_f1_is_that_of_the_best_cut():
    r = np.random.default_rng(0)
    p, w = torch.from_numpy(r.random((4, 6))), torch.from_numpy(r.choice([0., .3, 1.], (4, 6)))
    for i in range(4):
        def f1(cut): return 2*(w[i]*p[i])[p[i]>=cut].sum()/(w[i][p[i]>=cut].sum()+(w[i]*p[i]).sum())
        assert expected_f1(p, w)[i].item()==pytest.approx(max(f1(c).item() for c in p[i]), abs=1e-9)


# --- what is trained on ------------------------------------------------------------------------------------------------

def test_the_loss_of_words_counts_what_is_known():
    v, t = golden.draw(70, shape=(5, 4)), golden.draw(71, shape=(3, 4))
    y, known = (torch.from_numpy(np.random.default_rng(k).random((5, 3))<.5) for k in (0, 1))
    p = score(v, t).sigmoid()[known]
    want = -torch.where(y[known], p.log(), (1-p).log()).mean()
    assert torch.allclose(cm_loss(v, t, y, known), want, atol=1e-5) and not torch.allclose(cm_loss(v, t, y), want, atol=1e-2)

@pytest.mark.parametrize('lcm', [dict(lcm='exact', keep='share'), dict(lcm='label', keep='signed'), dict(keep='share', lcm_steps=3)], ids=str)
def test_local_features_are_chosen_where_the_configuration_says(lcm, exp):
    "When images are scored; in training only if that is asked for."
    def model(**kw): return golden.with_weights(PaperConfig(golden.C, golden.W, golden.D, 2, 0., **kw).build(), 11)
    batch = load_episodes(exp, [exp.episodes('test', 1)[0]])
    with torch.no_grad():
        scored = [m(batch[0])(batch[1]) for m in (model(**lcm), model(lcm='none'))]
        losses = [m.train().loss(*batch) for m in (model(**lcm), model(lcm='none'), model(**lcm, lcm_in_training=True))]
    assert not torch.allclose(*scored, atol=1e-2) and torch.equal(losses[0], losses[1]) and not torch.allclose(losses[0], losses[2], atol=1e-3)

def test_an_image_of_which_nothing_is_known_is_not_looked_at(exp, methods):
    "Whatever it shows: in the refined method to the last bit."
    support, query, _ = load_episodes(exp, [exp.episodes('test', 2)[0]])
    y, known = support.y.clone(), torch.ones_like(support.y)
    y[:, 2] = known[:, 2] = False
    f = support.x.locals.clone()
    f[:, 2] = golden.draw(72, shape=f[:, 2].shape)
    with torch.no_grad():
        for n in ('refined', 'refined, no vocabulary', 'refined, mean', 'refined, signed'):
            a, b = (methods[n](Support(Features(x), y, support.g, support.labels, known))(query) for x in (support.x.locals, f))
            assert torch.equal(a, b), n

def test_what_is_hashed_is_told_apart_by_its_parts():
    assert len({fingerprint(*parts) for parts in ((b'ab', b'c'), (b'a', b'bc'), (b'abc',), (b'abc', b''), ('abc',), (np.arange(3),), (np.arange(3.),))})==7

def test_a_column_is_that_of_its_name_in_any_order():
    images = ImageSet(['1.jpg', '2.jpg'], ['b', 'c', 'a'], np.array([[1, 0, 0], [0, 0, 1]]), 'toy')
    assert images.index(['a', 'b', 'c']).tolist()==[2, 0, 1] and images.labels[:, images.index(['a'])[0]].tolist()==[False, True]

@pytest.mark.parametrize('parts', [dict(train=['a'], val=['a'], test=[]), dict(train=['a'], val=[], test=['b', 'a']), dict(train=[], val=['a'], test=['a'])], ids=str)
def test_no_two_parts_share_a_label(parts):
    with pytest.raises(FsicError, match='a label may be in one part only'): LabelSplit('toy', **parts)
