"The baselines against loops, permutations and batches; the oracle's honesty; the trained ones learn and survive the disk."
import numpy as np, pytest, torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from sklearn.neighbors import NearestNeighbors
from fsic_nb.baselines import (TRAINING_FREE, LasoConfig, RelationConfig, bcr, build_graph, label_propagation, local_knn, matchingnet, oracle,
                               protonet, relative_scores)
from fsic_nb.core import FsicError
from fsic_nb.runs import load_model, save_model
from fsic_nb.support import Configuration, Features, Support, simpleshot

C,L,W = 6,9,5
CENTRE = torch.linspace(-.2, .3, C)

class Masks:
    "Stands for scenes: a share for every image, label and place, and a record of who was asked for."
    def __init__(self, n=1000, c=50):
        self.share,self.asked = np.random.default_rng(0).random((n, c, L)).astype(np.float32),[]
    def coverage(self, ids, labels=None, grid=(7, 7)):
        self.asked.append(np.asarray(ids)); self.grid = grid
        return self.share[np.asarray(ids)[...,:,None],np.asarray(labels)[...,None,:]]

def make(seed, S=6, N=4, Q=5, density=.4, lead=()):
    gen = torch.Generator().manual_seed(seed)
    r = lambda *s: torch.randn(*lead, *s, generator=gen)
    i = lambda n, top: torch.randint(top, (*lead, n), generator=gen).numpy()
    s = Support(Features(r(S, L, C), ids=i(S, 500)), torch.rand(*lead, S, N, generator=gen)<density, r(N, W), i(N, 50))
    return s,Features(r(Q, L, C), ids=500+i(Q, 500))

def at(s, q, e):
    return Support(Features(s.x.locals[e], ids=s.x.ids[e]), s.y[e], s.g[e], s.labels[e]),Features(q.locals[e], ids=q.ids[e])

def fit(cls):
    torch.manual_seed(0)
    m = cls(C, 16, 16).build()
    for p in m.buffers():
        if p.is_floating_point(): p.add_(.1)               # statistics that are not those of a fresh batch norm
    return m.eval()

METHODS = {**{k: f(CENTRE) for k,f in TRAINING_FREE.items()}, 'oracle': oracle(Masks(), CENTRE), 'sparse': label_propagation(CENTRE, 2, .7, .3),
           'one place': local_knn(CENTRE, 1), 'blocks': local_knn(CENTRE, 3, 600), 'relation': fit(RelationConfig), 'laso': fit(LasoConfig)}
every = pytest.mark.parametrize('name', METHODS)
densities = st.sampled_from([0., .1, .4, 1.])

@every
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), density=densities)
@torch.no_grad()
def test_a_batch_is_its_episodes(name, seed, density):
    s,q = make(seed, density=density, lead=(3,))
    got = METHODS[name](s)(q)
    assert got.shape==(3, 5, 4) and got.isfinite().all() and got.dtype==torch.float32
    for e in range(3):
        se,qe = at(s, q, e)
        assert torch.allclose(METHODS[name](se)(qe), got[e], atol=1e-4)

@every
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), density=densities)
@torch.no_grad()
def test_permutations(name, seed, density):
    (s,q),gen = make(seed, density=density),torch.Generator().manual_seed(seed)
    js,ii,qs,ks = (torch.randperm(n, generator=gen) for n in (6, 4, 5, L))
    want = METHODS[name](s)(q)
    other = Support(Features(s.x.locals[js], ids=s.x.ids[js.numpy()]), s.y[js][:,ii], s.g[ii], s.labels[ii.numpy()])
    got = METHODS[name](other)(Features(q.locals[qs][:,ks]))            # of the queries, their places too
    assert torch.allclose(got, want[qs][:,ii], atol=1e-4)

@pytest.mark.parametrize('name', [k for k in METHODS if k not in ('relation', 'laso')])
def test_a_label_without_positives_says_nothing(name):
    s,q = make(0); s.y[:,1] = False
    assert (METHODS[name](s)(q)[:,1]==0).all()
    with_it,s.y = METHODS[name](s)(q),s.y[:,[0, 2, 3]]; s.g,s.labels = s.g[[0, 2, 3]],s.labels[[0, 2, 3]]
    assert torch.allclose(METHODS[name](s)(q), with_it[:,[0, 2, 3]], atol=1e-5)         # and changes nothing for the others

@pytest.mark.parametrize('name', [k for k in METHODS if k not in ('labelprop', 'sparse')])
@torch.no_grad()
def test_inductive(name):
    s,q = make(1)
    assert torch.allclose(METHODS[name](s)(Features(q.locals[:2])), METHODS[name](s)(q)[:2], atol=1e-5)

def test_label_propagation_is_transductive():
    s,q = make(1)
    assert not torch.allclose(METHODS['sparse'](s)(Features(q.locals[:2])), METHODS['sparse'](s)(q)[:2], atol=1e-3)

@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), densities)
def test_relative_scores(seed, density):
    s,_ = make(seed, density=density)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
    z,there = relative_scores(x, s.y),s.y.any(0)
    assert torch.allclose(z.sum(1), torch.zeros(5), atol=1e-5) and (z[:,~there]==0).all()
    assert torch.allclose(relative_scores(x+torch.randn(5, 1), s.y), z, atol=1e-5)
    if there.any(): assert torch.allclose(z[:,there].diff(dim=1), x[:,there].diff(dim=1), atol=1e-5)

@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), densities)
def test_protonet_and_bcr_are_their_loops(seed, density):
    s,q = make(seed, density=density)
    x,there = s.x.means,s.y.any(0)
    P = [x[s.y[:,i]].mean(0) for i in range(4)]
    d = torch.stack([-((q.means-p)**2).sum(1) for p in P], 1)
    want = torch.where(there, d-d[:,there].mean(1, keepdim=True), 0.)
    assert torch.allclose(protonet(2.)(s)(q), 2*want, atol=1e-4)
    for i in there.nonzero()[:,0]:
        xi = x[s.y[:,i]]-CENTRE
        w = (F.cosine_similarity(xi, xi.mean(0)[None], dim=1)/.2).softmax(0)
        assert torch.allclose(bcr(CENTRE, .2)(s)(q)[:,i], F.cosine_similarity(q.means-CENTRE, (w@xi)[None], dim=1), atol=1e-5)

def test_bcr_becomes_the_mean():
    s,q = make(3)
    assert torch.allclose(bcr(CENTRE, 1e6)(s)(q), simpleshot(CENTRE)(s)(q), atol=1e-4)

@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), densities, st.sampled_from([.1, 1.]))
def test_matching_is_its_loop(seed, density, tau):
    s,q = make(seed, density=density)
    got = matchingnet(CENTRE, tau)(s)(q)
    for k in range(5):
        a = (F.cosine_similarity((q.means[k]-CENTRE)[None], s.x.means-CENTRE, dim=1)/tau).softmax(0)
        for i in s.y.any(0).nonzero()[:,0]:
            assert abs(got[k,i]-(sum(a[j] for j in range(6) if s.y[j,i])/s.y[:,i].float().mean()).log())<1e-4

@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_graph_has_the_neighbours_of_scikit_learn(seed, k):
    x = F.normalize(torch.randn(11, C, generator=torch.Generator().manual_seed(seed)), dim=-1)
    A = NearestNeighbors(n_neighbors=k).fit(x.numpy()).kneighbors_graph().toarray()>0
    got = build_graph(x, k, .3)
    assert ((got>0).numpy()==(A|A.T)).all() and torch.allclose(got, got.T) and (got.diagonal()==0).all()
    assert torch.linalg.eigvalsh(got).abs().max()<1+1e-5

@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), densities, st.floats(0, .9))
def test_label_propagation_is_its_iteration(seed, density, alpha):
    s,q = make(seed, density=density)
    got,S = label_propagation(CENTRE, 3, alpha, .4)(s)(q),6
    A = build_graph(F.normalize(torch.cat([s.x.means, q.means])-CENTRE, dim=-1), 3, .4).double()
    def spread(col):
        f = Y = torch.cat([col.double()/col.sum(), torch.zeros(5)])
        for _ in range(300): f = alpha*A@f+Y
        return f[S:]+1e-6
    for i in s.y.any(0).nonzero()[:,0]: assert torch.allclose(got[:,i].double(), (spread(s.y[:,i])/spread(torch.ones(S))).log(), atol=2e-2)

@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), densities, st.sampled_from([1, 3, 9, 50]), st.sampled_from([1, 10**3, 10**7]))
def test_localknn_is_its_loop(seed, density, k, memory):
    s,q = make(seed, S=4, density=density)
    got,there = local_knn(CENTRE, k, memory)(s)(q),s.y.any(0)
    f,fq = F.normalize(s.x.locals-CENTRE, dim=-1),F.normalize(q.locals-CENTRE, dim=-1)
    want = torch.zeros(5, 4)
    for i in there.nonzero()[:,0]:
        for n in range(5): want[n,i] = torch.stack([(f[s.y[:,i]].flatten(0, 1)@p).sort(descending=True).values[:min(k, L)].mean() for p in fq[n]]).mean()
    want = torch.where(there, want-want[:,there].mean(1, keepdim=True), 0.)
    assert torch.allclose(got, want, atol=1e-5)

def test_oracle_is_its_loop():
    (s,q),masks = make(5),Masks()
    got = oracle(masks, CENTRE, 8.)(s)(q)
    assert masks.grid==(3, 3)
    f,fq = F.normalize(s.x.locals-CENTRE, dim=-1),F.normalize(q.locals-CENTRE, dim=-1)
    for i in s.y.any(0).nonzero()[:,0]:
        P = sum(float(masks.share[s.x.ids[j],s.labels[i],k])*f[j,k] for j in range(6) if s.y[j,i] for k in range(L))
        c = fq@(P/P.norm())
        assert torch.allclose(got[:,i], (8*c).exp().mean(1).log()/8, atol=1e-5)

def test_oracle_never_looks_at_the_masks_of_queries():
    (s,q),masks = make(6, lead=(2,)),Masks()
    want = oracle(masks, CENTRE)(s)(q)
    assert len(masks.asked)==1 and (masks.asked[0]==s.x.ids).all()
    masks.share[500:] = np.nan                                             # the queries' half
    assert torch.equal(oracle(masks, CENTRE)(s)(Features(q.locals)), want)

def test_oracle_refuses():
    s,_ = make(7)
    with pytest.raises(FsicError, match='only scenes have'): oracle(None, CENTRE)
    with pytest.raises(FsicError, match='make it with `load_episodes`'): oracle(Masks(), CENTRE)(Support(Features(s.x.locals), s.y, s.g, s.labels))
    with pytest.raises(FsicError, match='make it with `load_episodes`'): oracle(Masks(), CENTRE)(Support(s.x, s.y, s.g))
    with pytest.raises(FsicError, match='no square grid'): oracle(Masks(), CENTRE)(Support(Features(s.x.locals[:,:8], ids=s.x.ids), s.y, s.g, s.labels))

both = pytest.mark.parametrize('cls', [RelationConfig, LasoConfig])

@both
def test_training_lowers_the_loss_and_reaches_every_weight(cls):
    (s,q),m = make(8, lead=(2,)),fit(cls).train()
    y,opt,losses = torch.rand(2, 5, 4, generator=torch.Generator().manual_seed(0))<.5,torch.optim.Adam(m.parameters(), 3e-3),[]
    for _ in range(40): loss = m.loss(s, q, y); opt.zero_grad(); loss.backward(); opt.step(); losses.append(loss.item())
    assert losses[-1]<.8*losses[0]
    assert not [n for n,p in m.named_parameters() if p.grad is None or not p.grad.any()]

@both
@torch.no_grad()
def test_round_trip(cls, tmp_path):
    (s,q),m = make(9),fit(cls)
    save_model(m, tmp_path/'m')
    again = load_model(tmp_path/'m')
    assert again.cfg==m.cfg and not again.training and torch.equal(again(s)(q), m(s)(q))
    with pytest.raises(FsicError, match="unknown key 'width'"): Configuration.from_dict({**m.cfg.to_dict(), 'width': 3})

@torch.no_grad()
def test_laso_support_is_a_loop_over_pairs():
    m,(s,_) = fit(LasoConfig),make(10)
    z,y = m.points(s.x),s.y
    op = lambda f, j, k: (f(torch.cat([z[j], z[k]]))+f(torch.cat([z[k], z[j]])))/2
    pairs = [(j, k) for j in range(6) for k in range(j)]
    mean = lambda rows: torch.stack(rows).mean(0) if rows else torch.zeros(16)
    for i,P in enumerate(m.prototypes(z, y)):
        want = (mean([z[j] for j in range(6) if y[j,i]])+mean([op(m.union, j, k) for j,k in pairs if y[j,i] or y[k,i]])
                +mean([op(m.inter, j, k) for j,k in pairs if y[j,i] and y[k,i]]))
        assert torch.allclose(P, want, atol=1e-5)
