"Names are read place by place, examples correct them by scikit-learn's ridge, and shares add up to the score."
import numpy as np, pytest, torch
import torch.nn.functional as F
from dataclasses import replace
from hypothesis import given, settings, strategies as st
from sklearn.linear_model import Ridge
from fsic_nb.core import FsicError
from fsic_nb.experiment import prepare
from fsic_nb.named import (WHOLE, NameDials, Named, blur, class_rates, evidence, fit_named, fit_space, learn_correction,
                           name_only, name_points)
from fsic_nb.names import class_prior
from fsic_nb.refined import Encoder
from fsic_nb.support import Features, Support, can_score

S, N, L, C, D, n_classes = 9, 4, 6, 12, 5, 7
seeds = st.integers(0, 10**6)


def make(seed=0, dials=NameDials()):
    torch.manual_seed(seed)
    encoder = Encoder(C, D, n_classes).eval()
    encoder.vocabulary.mean.data.uniform_(0, .1)
    rates = torch.rand(n_classes).softmax(-1)
    return Named(encoder, rates, 2*torch.rand(9, n_classes)-1, dials)


def episode(seed=0, shots=S, lead=()):
    gen = torch.Generator().manual_seed(seed)
    x = Features(torch.randn(*lead, shots, L, C, generator=gen))
    labels = np.broadcast_to(np.arange(N), (*lead, N))
    return Support(x, torch.rand(*lead, shots, N, generator=gen)<.4, None, labels)


def plain(model, support, query):
    "The method label by label, image by image, place by place: scores (Q, N)."
    d, voc = model.dials, model.encoder.vocabulary
    q = class_prior(model.cos[:N])
    def probabilities(f): return ((voc.classes(f)/2.5).softmax(-1)).numpy().astype(float)
    def name(f, i):                                                       # f (L, C)
        e = lambda p: np.log((q[i].numpy()*p/model.rates.numpy()).sum())
        v = model.encoder(f).mean(0)
        point = (v/v.norm())@name_points(model.encoder, q)[i]
        best = np.log(np.mean([np.exp(d.beta*e(probabilities(x))) for x in f]))/d.beta
        return d.whole*e(probabilities(f.mean(0)))+d.point*float(point)+d.places*best
    def vector(f): return F.normalize(model.encoder(f).mean(0), dim=-1).numpy()
    out = np.zeros((len(query.locals), N))
    for i in range(N):
        s, sq = (np.array([name(f, i) for f in x.locals]) for x in (support.x, query))
        V, Vq = (np.stack([vector(f) for f in x.locals]) for x in (support.x, query))
        z = np.where(support.y[:, i], 1., -1.)
        fit = Ridge(d.alpha).fit(np.column_stack([V, d.doubt**.5*s]), z-s)
        out[:, i] = sq+fit.predict(np.column_stack([Vq, d.doubt**.5*sq]))
    return out


@torch.no_grad()
@settings(max_examples=10, deadline=None)
@given(seeds, st.sampled_from([NameDials(), WHOLE, NameDials(doubt=0.), NameDials(.2, .4, .3, 2., .7, 2.)]))
def test_the_method_is_its_plain_version(seed, dials):
    model, support = make(seed, dials), episode(seed)
    query = Features(torch.randn(5, L, C, generator=torch.Generator().manual_seed(seed+1)))
    assert np.allclose(model(support)(query), plain(model, support, query), atol=5e-3)


@torch.no_grad()
@pytest.mark.parametrize('second', [[0, 1, 2, 3], [4, 2, 8, 1]], ids=['same labels', 'other labels'])
def test_a_batch_is_its_episodes(second):
    model, both = make(), episode(3, lead=(2,))
    both.labels = np.array([[0, 1, 2, 3], second])
    query = Features(torch.randn(2, 5, L, C))
    s = model(both)(query)
    for e in range(2):
        one = Support(Features(both.x.locals[e]), both.y[e], None, both.labels[e])
        assert torch.allclose(s[e], model(one)(Features(query.locals[e])), atol=1e-3)


@torch.no_grad()
def test_without_examples_the_names_decide():
    model, query = make(), Features(torch.randn(5, L, C))
    none = episode(shots=0)
    assert can_score(model, 0) and can_score(name_only(model), 0)
    s = model(none)(query)
    assert s.shape==(5, N) and torch.equal(s, name_only(model)(none)(query)) and torch.equal(s, name_only(model)(episode())(query))
    assert not torch.allclose(s, model(episode())(query), atol=1e-2)
    with pytest.raises(FsicError, match='named: the support does not say which labels'):
        model(Support(query, torch.ones(5, N).bool(), None))


@torch.no_grad()
def test_one_good_place_is_enough():
    "Selection: the soft maximum finds a place that the mean of many others drowns."
    model = make(dials=NameDials(0., 0., 1., 16.))
    W = model.encoder.vocabulary.classes.weight
    query = .1*torch.randn(2, 60, C)
    query[1, 7] = 40*torch.linalg.pinv(W)[:, 3]
    model.cos = torch.full((9, n_classes), -1.)
    model.cos[0, 3] = 1.
    model.cos[1, 5] = 1.
    s = model(Support(Features(torch.zeros(0, 60, C)), torch.zeros(0, 2).bool(), None, np.arange(2)))(Features(query))
    assert s[1, 0]>s[0, 0]+.2 and s[1, 0]>s[1, 1]+.2
    off = Named(model.encoder, model.rates, model.cos, replace(WHOLE, whole=1., point=0.))
    t = off(Support(Features(torch.zeros(0, 60, C)), torch.zeros(0, 2).bool(), None, np.arange(2)))(Features(query))
    assert s[1, 0]-s[0, 0]>t[1, 0]-t[0, 0]


@settings(max_examples=15, deadline=None)
@given(seeds, st.floats(.05, 5), st.floats(0, 5))
def test_the_correction_is_a_ridge_with_the_name_as_a_column(seed, alpha, doubt):
    gen = torch.Generator().manual_seed(seed)
    v, s = F.normalize(torch.randn(S, D, generator=gen), dim=-1), torch.randn(S, N, generator=gen)
    y = torch.rand(S, N, generator=gen)<.4
    c = learn_correction(s, v, y, NameDials(alpha=alpha, doubt=doubt))
    for i in range(N):
        columns = np.column_stack([v, doubt**.5*s[:, i]])
        theirs = Ridge(alpha).fit(columns, 2*y[:, i].double().numpy()-1-s[:, i].numpy())
        assert np.allclose(c.P[i], theirs.coef_[:D], atol=2e-3) and abs(c.trust[i]-1-doubt**.5*theirs.coef_[D])<2e-3
        assert np.allclose(c(s, v)[:, i], s[:, i].numpy()+theirs.predict(columns), atol=5e-3)


@torch.no_grad()
def test_wrong_names_lose_trust():
    gen = torch.Generator().manual_seed(0)
    y = torch.rand(200, 2, generator=gen)<.5
    truth = 2*y.float()-1
    s = torch.stack([truth[:, 0], -truth[:, 1]], 1)+.1*torch.randn(200, 2, generator=gen)
    c = learn_correction(s, torch.zeros(200, D), y)
    assert c.trust[0]>.9 and c.trust[1]<-.9
    assert torch.allclose(learn_correction(s, torch.zeros(200, D), y, NameDials(doubt=0.)).trust, torch.ones(2))


@torch.no_grad()
def test_shares_add_up_and_blur_keeps_flat_maps():
    model, support, query = make(), episode(2), Features(torch.randn(5, L, C))
    q = class_prior(model.cos[:N])
    c = model.correct(support)
    w = c.P+c.trust[:, None]*model.dials.point*name_points(model.encoder, q)
    shares = model.share_places(support)(query)
    assert shares.shape==(5, N, L) and torch.allclose(shares.sum(-1), model.encoder.whole(query.locals)@w.T, atol=1e-5)
    image = torch.zeros(2, 3, 25)
    image[..., 12] = 9
    out = blur(image, (5, 5)).view(2, 3, 5, 5)
    assert torch.allclose(out[..., 1:4, 1:4], torch.ones(3, 3)) and out[..., 0, :].abs().max()==0
    assert torch.equal(blur(torch.ones(4, 6), (2, 3)), torch.ones(4, 6))


@torch.no_grad()
def test_evidence_and_rates():
    p, q, rates = torch.rand(3, 8).softmax(-1), torch.rand(2, 8).softmax(-1), torch.rand(8).softmax(-1)
    assert torch.allclose(evidence(p, q, rates)[1, 2], (q[1]*p[2]/rates).sum().log(), atol=1e-5)
    exp = prepare('scenes', quick=True, say=lambda line: None)
    encoder, ids = fit_space(exp), exp.basis[:20]
    rates = class_rates(encoder, exp.features, ids)
    z = encoder.vocabulary.classes(exp.features[ids])/2.5
    assert torch.allclose(rates, z.softmax(-1).mean((0, 1)), atol=1e-5)
    exp.__dict__['head'] = None
    with pytest.raises(FsicError, match='lite0: this backbone has no classifier'): fit_space(exp)


def test_on_scenes_examples_help_where_names_know_little():
    from fsic_nb.evaluate import evaluate
    exp = prepare('scenes', quick=True, say=lambda line: None)
    named = fit_named(exp)
    maps = evaluate({'named': named, 'alone': name_only(named)}, exp.episodes('test', 5), exp, n=8)
    assert maps['named']['map'].mean()>maps['alone']['map'].mean()+.1
