"What a method is given is checked once, and a label that is unknown for an image neither pulls nor pushes, in any method."
import re

import numpy as np, pytest, torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from fsic_nb.baselines import TRAINING_FREE, LasoConfig, RelationConfig
from fsic_nb.core import FsicError
from fsic_nb.episodes import Episode
from fsic_nb.lcm import gram, lcm_gradient, lcm_scores, leave_one_out
from fsic_nb.model import PaperConfig
from fsic_nb.named import Named, NameDials
from fsic_nb.probes import ridge_around_name
from fsic_nb.refine import Round, refine_round
from fsic_nb.refined import Encoder, RefinedConfig
from fsic_nb.support import Features, StoredFeatures, Support, load_episodes, mean_bce

C, W, D, L, S, N, Q, n_classes = 6, 5, 10, 9, 7, 4, 5, 7
CENTRE = .1*torch.randn(C, generator=torch.Generator().manual_seed(9))
seeds = st.integers(0, 10**6)


def make(seed, lead=(), unknown=.4):
    "A support, which of its labels are known, query images and their labels."
    gen = torch.Generator().manual_seed(seed)
    def randn(*s): return torch.randn(*lead, *s, generator=gen)
    y = torch.rand(*lead, S, N, generator=gen)<.4
    known = y|(torch.rand(*lead, S, N, generator=gen)>unknown)
    labels = np.broadcast_to(np.arange(N), (*lead, N))
    s = Support(Features(randn(S, L, C)), y, randn(N, W), labels, known)
    return s, Features(randn(Q, L, C)), torch.rand(*lead, Q, N, generator=gen)<.4


def rows(s, keep, y=None):
    "The support with some of its images alone, all of whose labels are known."
    return Support(Features(s.x.locals[keep]), s.y[keep], s.g, s.labels)


def space():
    torch.manual_seed(0)
    encoder = Encoder(C, 5, n_classes).eval()
    encoder.vocabulary.mean.data.uniform_(0, .1)
    return encoder


def built(cfg):
    torch.manual_seed(0)
    return cfg.build().eval()


COS = 2*torch.rand(N, n_classes, generator=torch.Generator().manual_seed(3))-1
RATES = torch.full((n_classes,), 1/n_classes)
ALONE = {**{k: TRAINING_FREE[k](CENTRE) for k in ('simpleshot', 'matching', 'bcr', 'logistic', 'ridge', 'svm')},
         'named': Named(space(), RATES, COS), 'doubtless': Named(space(), RATES, COS, NameDials(doubt=0., alpha=.3)),
         'ridge-name': ridge_around_name(space(), COS)}       # each label has a score of its own
MODELS = {**{f'refined {k}': built(RefinedConfig(C, W, dim=D, **v)) for k, v in
             dict(soft={}, signed=dict(select='signed'), mean=dict(solve='mean'), quiet=dict(push=False)).items()},
          **{f'paper {k}': built(PaperConfig(C, W, dim=16, heads=2, **v)) for k, v in
             dict(wagp=dict(prototype='wagp'), cross={}, words=dict(prototype='words'), exact=dict(lcm='exact', keep='share'), label=dict(lcm='label', keep='signed'),
                  loop=dict(keep='share', lcm_steps=1)).items()},
          'relation': built(RelationConfig(C, 16, 16)), 'laso': built(LasoConfig(C, 16, 16))}
TOGETHER = {**MODELS, 'protonet': TRAINING_FREE['protonet'](CENTRE), 'localknn': TRAINING_FREE['localknn'](CENTRE)}
METHODS = {**ALONE, **TOGETHER}


# --- unknown labels ---------------------------------------------------------------------------------------------------

@torch.no_grad()
@pytest.mark.parametrize('name', ALONE)
@settings(max_examples=10, deadline=None)
@given(seeds)
def test_a_label_is_scored_as_by_the_images_for_which_it_is_known(name, seed):
    s, q, _ = make(seed)
    got = ALONE[name](s)(q)
    assert got.isfinite().all()
    for i in range(N):
        few = rows(s, s.known[:, i]) if s.known is not None else s
        assert torch.allclose(got[:, i], ALONE[name](few)(q)[:, i], atol=5e-3), i


@torch.no_grad()
@pytest.mark.parametrize('name', METHODS)
@settings(max_examples=5, deadline=None)
@given(seeds, st.integers(1, 3))
def test_an_image_of_which_nothing_is_known_might_not_be_there(name, seed, n):
    s, q, _ = make(seed, unknown=0)
    y, known = s.y.clone(), torch.ones_like(s.y)
    y[:n] = known[:n] = False
    other = Support(s.x, y, s.g, s.labels, known)
    assert torch.allclose(METHODS[name](other)(q), METHODS[name](rows(other, slice(n, None)))(q), atol=2e-3)


@torch.no_grad()
@pytest.mark.parametrize('name', METHODS)
def test_a_batch_with_unknown_labels_is_its_episodes(name):
    s, q, _ = make(5, lead=(3,))
    got = METHODS[name](s)(q)
    for e in range(3):
        one = Support(Features(s.x.locals[e]), s.y[e], s.g[e], s.labels[e], s.known[e])
        assert torch.allclose(METHODS[name](one)(Features(q.locals[e])), got[e], atol=2e-3)


@torch.no_grad()
@pytest.mark.parametrize('name', [*METHODS, 'labelprop'])
def test_where_all_is_known_the_bits_are_the_same(name):
    method = METHODS.get(name) or TRAINING_FREE[name](CENTRE)
    s, q, _ = make(2, unknown=0)
    assert torch.equal(method(Support(s.x, s.y, s.g, s.labels))(q), method(Support(s.x, s.y, s.g, s.labels, s.y|True))(q))


@torch.no_grad()
@pytest.mark.parametrize('name', [k for k in METHODS if k not in ('protonet', 'simpleshot', 'bcr', 'localknn', 'relation', 'paper wagp', 'paper words',
                                                                  'refined quiet', 'paper cross', 'paper label')])
def test_to_be_unknown_is_not_to_be_absent(name):
    "Or the tests above would pass where `known` is not read at all."
    differs = []
    for seed in range(8):
        s, q, _ = make(seed)
        differs.append(not torch.allclose(METHODS[name](s)(q), METHODS[name](Support(s.x, s.y, s.g, s.labels))(q), atol=1e-4))
    assert any(differs)


@torch.no_grad()
def test_in_label_propagation_an_unknown_image_is_a_query():
    "It stays a node of the graph, as a query is one."
    s, q, _ = make(4, unknown=0)
    y, known = s.y.clone(), torch.ones_like(s.y)
    y[0] = known[0] = False
    method = TRAINING_FREE['labelprop'](CENTRE)
    moved = Features(torch.cat([s.x.locals[:1], q.locals]))
    want = method(rows(Support(s.x, y, s.g, s.labels), slice(1, None)))(moved)[1:]
    assert torch.allclose(method(Support(s.x, y, s.g, s.labels, known))(q), want, atol=1e-4)
    assert not torch.allclose(method(Support(s.x, y, s.g, s.labels))(q), want, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize('solve', ['ridge', 'mean'])
@settings(max_examples=10, deadline=None)
@given(seeds)
def test_a_round_leaves_out_unknown_rows(solve, seed):
    s, _, _ = make(seed)
    x, m = F.normalize(torch.randn(S, L, D), dim=-1), torch.randn(N, D)
    P = F.normalize(torch.randn(N, D), dim=-1)
    how = Round(*(torch.full((N,), v) for v in (5., .1, 4., 10.)), claims=False, solve=solve)
    got, _ = refine_round(x, s.y, P, m, how, s.known)
    for i in range(N):
        k = slice(None) if s.known is None else s.known[:, i]
        if not s.y[k, i].numel(): continue
        want, _ = refine_round(x[k], s.y[k], P, m, how)
        assert torch.allclose(got[i], want[i], atol=1e-4)


def test_loss_changes_leave_out_unknown_pairs():
    torch.manual_seed(0)
    x, b, t = torch.randn(S, L, D, dtype=torch.float64), torch.randn(D, dtype=torch.float64), torch.randn(N, D, dtype=torch.float64)
    s, _, _ = make(1)
    delta, all_known = leave_one_out(x, b, t, s.y, s.known), leave_one_out(x, b, t, s.y)
    assert torch.equal(delta[s.known], all_known[s.known]) and not delta[~s.known].any()
    known = torch.ones(S, N).bool()
    known[:, 2] = False                                       # label 2 is unknown everywhere: as if it were not asked about
    y, some = s.y&known, [0, 1, 3]
    rho = torch.rand(S, L).double().numpy()
    got = lcm_gradient(gram(x, b, t), rho, y.numpy(), known.numpy())
    assert np.allclose(got, lcm_gradient(gram(x, b, t[some]), rho, y[:, some].numpy()))
    assert torch.allclose(lcm_scores(x, b, t, y, 3, known=known), lcm_scores(x, b, t[some], y[:, some], 3))
    assert torch.equal(lcm_scores(x, b, t, y, 3, known=known|True), lcm_scores(x, b, t, y, 3))


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_mean_bce_is_a_mean_over_known_pairs(seed):
    s, _, _ = make(seed)
    known = s.y|True if s.known is None else s.known
    z = torch.randn(S, N)
    want = F.binary_cross_entropy_with_logits(z[known], s.y[known].float())
    assert torch.allclose(mean_bce(z, s.y, known), want)


@pytest.mark.parametrize('name', MODELS)
def test_no_loss_reads_an_unknown_query(name):
    model, (s, q, y) = MODELS[name], make(3)
    s.known = None
    known = y|(torch.rand(Q, N, generator=torch.Generator().manual_seed(1))<.6)
    q.known = known
    loss = model.loss(s, q, y&known)
    assert loss.isfinite() and not torch.isclose(loss, model.loss(s, Features(q.locals), y), atol=1e-4)
    if name=='laso': return                                   # it also compares an image with its neighbour
    q2 = Features(q.locals.clone())
    q2.known = known.clone()
    gone = torch.zeros(Q).bool()
    gone[2] = True                                            # nothing is known of one query: as if it were not asked about
    q.known = known&~gone[:, None]
    rest = Features(q.locals[~gone])
    rest.known = known[~gone]
    assert torch.isclose(model.loss(s, q, y&q.known), model.loss(s, rest, (y&known)[~gone]), atol=1e-4)


class Experiment:
    "As little of an experiment as `load_episodes` needs."
    words = torch.randn(N, W)
    class features:
        def __class_getitem__(cls, ids): return torch.zeros(*np.shape(ids), L, C)
        mean_of = staticmethod(lambda ids: torch.zeros(*np.shape(ids), C))


def test_load_episodes_hands_over_what_is_known():
    def episode(known, known_query):
        y, yq = np.zeros((2, N), bool), np.zeros((3, N), bool)
        return Episode(np.arange(2), np.arange(3), np.arange(N), y, yq, 0, 0, 1, 3, known, known_query)
    support, query, _ = load_episodes(Experiment, [episode(None, None)]*2)
    assert support.known is None and query.known is None
    known, known_query = np.eye(2, N).astype(bool), np.eye(3, N).astype(bool)
    support, query, _ = load_episodes(Experiment, [episode(known, known_query), episode(~known, ~known_query)])
    assert support.known.shape==(2, 2, N) and torch.equal(support.known[1], ~torch.as_tensor(known))
    assert query.known.shape==(2, 3, N) and torch.equal(query.known[0], torch.as_tensor(known_query))


# --- what is taken, and what is refused --------------------------------------------------------------------------------

f, y0 = torch.randn(3, L, C), torch.tensor([[1, 0], [0, 1], [1, 1]]).bool()


@pytest.mark.parametrize('name', [*TRAINING_FREE])
@pytest.mark.parametrize('form', [torch.Tensor.long, torch.Tensor.double, torch.Tensor.numpy, lambda y: y.int().numpy(), torch.Tensor.tolist,
                                  lambda y: y.long().tolist()])
def test_labels_of_any_kind_give_the_same_scores(name, form):
    method, q = TRAINING_FREE[name](torch.zeros(C)), Features(torch.randn(2, L, C))
    assert torch.equal(method(Support(Features(f), form(y0), None))(q), method(Support(Features(f.tolist()), y0, None))(q))


@pytest.mark.parametrize('spoil, says', [
    (lambda: Support(Features(f), y0.T, None), 'y: the shape (2, 3) does not fit images of the shape (3,) (it looks transposed); give a row for every image'),
    (lambda: Support(Features(f), y0[:2], None), 'y: the shape (2, 2) does not fit images of the shape (3,); give a row'),
    (lambda: Support(Features(f[None]), y0, None), 'y: the shape (3, 2) does not fit images of the shape (1, 3)'),
    (lambda: Support(StoredFeatures(None, np.arange(3)), y0.T, None), '(it looks transposed)'),
    (lambda: Support(Features(f), [0, 1, 1], None), 'y: expected (images, labels), found the shape (3,)'),
    (lambda: Support(Features(f), [[1], [0, 1], [1]], None), 'y: not a table of 0 and 1'),
    (lambda: Support(Features(f), [['a', 'b']]*3, None), 'y: not a table of 0 and 1'),
    (lambda: Support(Features(f), 2*y0.long(), None), 'y: expected 0 or 1'),
    (lambda: Support(Features(f), y0*torch.nan, None), 'y: expected 0 or 1'),
    (lambda: Support(f, y0, None), 'x: expected Features, found Tensor; write Features(x)'),
    (lambda: Support(Features(f), y0, torch.zeros(3, W)), 'g: (3, 5) for labels (3, 2)'),
    (lambda: Support(Features(f), y0, torch.full((2, W), torch.nan)), 'g: NaN or inf'),
    (lambda: Support(Features(f), y0, torch.zeros(W)), 'g: expected (labels, dimensions)'),
    (lambda: Support(Features(f), y0, None, [4]), 'labels: (1,) numbers for labels (3, 2)'),
    (lambda: Support(Features(f), y0, None, known=y0.T), 'known: the shape (2, 3) for labels (3, 2)'),
    (lambda: Support(Features(f), y0, None, known=~y0), 'known: an image carries a label that it is said to be unknown for'),
    (lambda: Features(f[0]), 'locals: expected (images, local features, channels), found the shape (9, 6)'),
    (lambda: Features(None, f[0, 0]), 'means: expected (images, channels), found the shape (6,)'),
    (lambda: Features('x.jpg'), 'locals: not a table of numbers'),
    (lambda: Features(f.where(f<1e9, torch.nan).index_fill(0, torch.tensor([1]), torch.nan)), 'NaN or inf in 1 of 3 images, the first at [1]'),
    (lambda: Features(None, f.mean(1)/0), 'means: NaN or inf in 3 of 3 images'),
    (lambda: Features(f, f.mean(1).T), 'means: (6, 3), but those of the local features are (3, 6)'),
    (lambda: Features(), 'Features: give local features or means')])
def test_what_cannot_be_meant_is_one_sentence(spoil, says):
    with pytest.raises(FsicError, match=re.escape(says)) as e: spoil()
    assert str(e.value).count('. ')==0 and str(e.value).endswith('.')


def test_stored_features_are_not_fetched_to_be_checked():
    class Store:
        def __getitem__(self, ids): raise AssertionError('nobody should have asked')
        mean_of = __getitem__
    s = Support(StoredFeatures(Store(), np.zeros((2, 3), int)), torch.zeros(2, 3, N).bool(), None)
    assert s.x.shape==(2, 3)


def test_features_in_training_are_not_searched_for_nan():
    "A loss that is not finite says more than its features would."
    Features(torch.full((2, L, C), torch.nan, requires_grad=True))
