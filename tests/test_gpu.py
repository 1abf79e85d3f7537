import numpy as np, pytest, torch
import golden
from fsic_nb.evaluate import evaluate
from fsic_nb.metrics import episode_metrics
from fsic_nb.support import Support, can_score, load_episodes
from pretended_gpu import GPU, OnGpu, pretended_gpu

@pytest.fixture(autouse=True, scope='module')
def gpu():
    with pretended_gpu() as g: yield g


# --- the pretence itself -----------------------------------------------------------------------------------------------

def both(): return torch.arange(6.).view(2, 3), torch.arange(6., device='cuda').view(2, 3)

@pytest.mark.parametrize('mix', [lambda c, g: c+g, lambda c, g: g*c, lambda c, g: g@c.T, lambda c, g: torch.cat([g, c]), lambda c, g: c.add_(g),
    lambda c, g: torch.where(g>0, g, c), lambda c, g: g.masked_fill(c>0, 0), lambda c, g: c[g>0], lambda c, g: torch.stack([g[0, 0], c[0, 0]]),
    lambda c, g: g.index_select(0, torch.tensor([0])), lambda c, g: g.gather(0, torch.zeros(1, 1, dtype=torch.long)),
    lambda c, g: torch.nn.functional.linear(g, c), lambda c, g: g.__setitem__(0, c[0].tolist() and c[0]+g[0])])
def test_devices_do_not_mix(mix):
    with pytest.raises(RuntimeError, match='same device'): mix(*both())

def test_what_a_gpu_allows():
    c, g = both()
    for y in (g+c[0, 1], c[0, 1]*g, g[torch.tensor([0])], g[c>0], g[[0]], g[np.array([0])], torch.where(g>0, c.sum(), 0.), torch.zeros_like(g), g.new_ones(2), g.new_tensor([1.]),
              torch.eye(2, device=GPU), torch.as_tensor([1], device='cuda'), c.to(g), c.to('cuda', torch.float64), g.double(), torch.nn.Linear(3, 2).to('cuda')(g)):
        assert isinstance(y, OnGpu) and y.device==GPU and y.is_cuda
    for y in (g.cpu(), g.to('cpu'), g.to(c), torch.zeros_like(g, device='cpu')): assert type(y) is torch.Tensor
    for f in (g.numpy, lambda: np.asarray(g), lambda: np.array(g)): pytest.raises(TypeError, f)
    assert g.tolist()==c.tolist() and g[0, 1].item()==float(g[0, 1])==1 and bool((g>=0).all()) and torch.equal(g.cpu(), c) and int(g.sum())==15

def test_what_is_written_is_seen():
    c, g = both()
    v, w = g[0], g.view(-1)
    v += 1
    g[1, torch.tensor([0])] = 7.
    w[5:].copy_(torch.tensor([9.]))
    assert g.tolist()==[[1, 2, 3], [7, 4, 9]]
    assert c.copy_(g).tolist()==g.tolist() and type(c) is torch.Tensor

def test_gradients_come_back():
    m = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    x, _ = both()
    def grads():
        x.grad = None
        m.zero_grad()
        x.requires_grad_()
        m(x.to(next(m.parameters()).device)).square().sum().backward()
        return [x.grad, *(p.grad.cpu() for p in m.parameters())]
    want = grads()
    m.to('cuda')
    assert all(isinstance(p, OnGpu) for p in m.parameters()) and all(map(torch.allclose, grads(), want))
    before = m[0].weight.cpu()
    torch.optim.Adam(m.parameters(), fused=True).step()
    assert not torch.equal(before, m[0].weight.cpu())


# --- every method ------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def exps(gpu): return golden.make_experiment(), golden.make_experiment(gpu)

@pytest.fixture(scope='module')
def methods(exps): return [golden.make_methods(exp) for exp in exps]

def near(name): return dict(atol=5e-3 if name.startswith('refined') else 1e-4, rtol=1e-4)

@pytest.mark.parametrize('name', golden.kept('scores'))
def test_a_method_on_the_gpu(name, exps, methods):
    "Its scores are those of the CPU, and on the GPU: with one, five and no examples, and where labels are unknown."
    both = []
    for exp, method in zip(exps, methods):
        m, found = method[name], []
        for shots in (0, 1, 5):
            if not can_score(m, shots): continue
            eps = exp.episodes('test', shots)
            support, query, y = load_episodes(exp, [eps[0], eps[1]])
            found.append(m(support)(query))
            assert found[-1].device==exp.words.device
            r = evaluate({'m': m}, eps, exp, n=2)['m']
            found += [torch.from_numpy(r[k]) for k in ('map', 'micro_ap', 'ap')]
        known = torch.from_numpy(np.random.default_rng(8).random(support.y.shape)<.6).to(support.y.device)|support.y
        support = Support(support.x, support.y, support.g, support.labels, known)
        query.known = known[:, :1].expand_as(y)|y
        s = m(support)(query)
        found += [s, torch.from_numpy(episode_metrics(s, y, weights=query.known)['map'])]
        both.append([s.detach().cpu() for s in found])
    for want, got in zip(*both): assert torch.allclose(got, want, equal_nan=True, **near(name))
