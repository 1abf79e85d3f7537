"What is remembered is what would be computed: `Cache`, and methods that use it."
from types import SimpleNamespace
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from fsic_nb.baselines import local_knn
from fsic_nb.cache import Cache
from fsic_nb.model import PaperConfig
from fsic_nb.refined import RefinedConfig
from fsic_nb.support import Features, StoredFeatures, Support, simpleshot

N_ALL,C_ALL,L,C,W = 30,9,6,8,5

class Store:
    "Images in memory, counted when they are fetched."
    def __init__(self, n=N_ALL): self.x,self.fetched = torch.randn(n, L, C, generator=torch.Generator().manual_seed(0)),0
    def __len__(self): return len(self.x)
    def __getitem__(self, ids): self.fetched += np.size(ids); return self.x[torch.as_tensor(ids)]
    def mean_of(self, ids): return self.x[torch.as_tensor(ids)].mean(-2)

WORDS = torch.randn(C_ALL, W, generator=torch.Generator().manual_seed(1))
def cached(store, **kw): return Cache(SimpleNamespace(features=store, words=WORDS), **kw)
def pair(x): return 2*x,x.sum(-1)

@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, N_ALL-1), min_size=4, max_size=4), min_size=1, max_size=6), st.integers(1, 12), st.booleans())
def test_a_cache_is_the_function(batches, room, grad):
    store = Store()
    cache = cached(store, memory=room*(store.x[0].nbytes*2+L*4))
    with torch.set_grad_enabled(grad):
        for ids in batches:
            ids = np.array(ids).reshape(2, 2)
            for got,want in zip(cache(pair, ids), pair(store.x[ids])): assert torch.equal(got, want)
            assert torch.equal(cache(torch.neg, ids%C_ALL, 'words'), -WORDS[ids%C_ALL])
            assert torch.equal(cache(torch.neg, ids, 'means'), -store.x[ids].mean(-2))

def test_an_image_is_fetched_once():
    store = Store(); cache = cached(store)
    with torch.no_grad():
        for e in range(5): cache(pair, np.arange(e, e+10))
    assert store.fetched==1+14                                               # one to see a row, then each once
    for e in range(2): cache(pair, np.array([3, 3, 4]))                       # with a gradient nothing is remembered
    assert store.fetched==15+2*2

def episode(seed, E=3, S=8, N=4, Q=7):
    r = np.random.default_rng(seed)
    return r.integers(0, N_ALL, (E, S)),r.integers(0, N_ALL, (E, Q)),r.integers(0, C_ALL, (E, N)),torch.from_numpy(r.random((E, S, N))<.4)

def both(store, cache, seed):
    "The same episodes with and without what is remembered."
    s,q,labels,y = episode(seed)
    def stored(ids): return StoredFeatures(store, ids, cache=cache)
    g = WORDS[torch.as_tensor(labels)]
    yield Support(stored(s), y, g, labels), stored(q)
    yield Support(Features(store.x[s]), y, g, labels),Features(store.x[q])

def fresh(cfg):
    torch.manual_seed(0)
    return cfg.build().eval()

METHODS = {str(kw): fresh(PaperConfig(C, W, dim=16, heads=2, lcm_steps=20, **kw)) for kw in
           (dict(), dict(lcm='label', keep='share'), dict(lcm='exact', keep='signed'), dict(prototype='wagp'), dict(prototype='words'), dict(parts=()), dict(parts=('conv', 'gate')))}
METHODS.update(refined=fresh(RefinedConfig(C, W, dim=16)), vocabulary=fresh(RefinedConfig(C, W, dim=12, classes=4)), simpleshot=simpleshot(torch.zeros(C)), localknn=local_knn(torch.zeros(C)))

@pytest.mark.parametrize('name', METHODS)
def test_methods_do_not_notice(name):
    store = Store(); cache = cached(store)
    with torch.no_grad():
        for seed in range(4):
            a,b = (METHODS[name](s)(q) for s,q in both(store, cache, seed))
            assert torch.allclose(a, b, atol=1e-4)

@pytest.mark.parametrize('name', ['{}', 'refined', "{'prototype': 'wagp'}"])
def test_the_gradient_is_the_same(name):
    store,model = Store(),METHODS[name]
    y = torch.rand(3, 7, 4, generator=torch.Generator().manual_seed(5))<.4
    grads = []
    for s,q in both(store, cached(store), 7):
        model.zero_grad(); model.loss(s, q, y).backward()
        grads.append({n: p.grad.clone() for n,p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys()==grads[1].keys()
    for n in grads[0]: assert torch.allclose(grads[0][n], grads[1][n], atol=1e-5, rtol=1e-3), n

def test_another_word_is_not_remembered():
    "Whoever changes the words takes the labels' numbers away with them."
    store = Store(); cache = cached(store)
    s,_ = next(both(store, cache, 0))
    with torch.no_grad():
        assert torch.equal(s.map(torch.neg), -s.g)
        assert torch.equal(Support(s.x, s.y, s.g.roll(1, -2)).map(torch.neg), -s.g.roll(1, -2))

def test_without_memory_new_weights_are_seen():
    "A batch that `load` made is not stale after a training step."
    store,model = Store(),fresh(RefinedConfig(C, W, dim=16))
    s,q = next(both(store, cached(store, memory=0), 3))
    with torch.no_grad():
        before = model(s)(q)
        model.encoder.proj.weight.mul_(-1).add_(.1)
        s2,q2 = list(both(store, None, 3))[1]
        assert torch.allclose(model(s)(q), model(s2)(q2), atol=1e-5) and not torch.allclose(model(s)(q), before, atol=1e-3)
