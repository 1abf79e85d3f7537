"Probes are scikit-learn's, batches are their episodes, names need no example, and bounds look nothing up that they should not."
from types import SimpleNamespace
import numpy as np, pytest, torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import SVC
from fsic_nb import probes
from fsic_nb.core import FsicError
from fsic_nb.data import ImageSet
from fsic_nb.named import name_points
from fsic_nb.refined import Encoder, RefinedConfig
from fsic_nb.support import Features, Support, can_score

S, N, D, L, C, n_classes = 9, 4, 20, 6, 12, 7


def draw(seed, lead=(), density=.4):
    gen = torch.Generator().manual_seed(seed)
    v = F.normalize(torch.randn(*lead, S, D, generator=gen), dim=-1)
    return v, torch.rand(*lead, S, N, generator=gen)<density


def space(seed=0):
    torch.manual_seed(seed)
    encoder = Encoder(C, 5, n_classes).eval()
    encoder.vocabulary.mean.data.uniform_(0, .1)
    return encoder


seeds = st.integers(0, 10**6)


@settings(max_examples=15, deadline=None)
@given(seeds, st.floats(.05, 20))
def test_ridge_is_scikit_learns(seed, alpha):
    v, y = draw(seed)
    P, b = probes.ridge(v, y, alpha=alpha)
    theirs = Ridge(alpha=alpha).fit(v.double().numpy(), 2*y.double().numpy()-1)
    assert np.allclose(P, theirs.coef_, atol=1e-4) and np.allclose(b, theirs.intercept_, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(seeds, st.floats(.1, 30))
def test_logistic_and_svm_are_scikit_learns(seed, penalty):
    v, y = draw(seed)
    P, b = probes.logistic(v, y, penalty)
    Q, c = probes.svm(v, y, penalty)
    for i in range(N):
        if y[:, i].all() or not y[:, i].any():
            assert not Q[i].any() and P[i].abs().max()<1e-5
            continue
        theirs = LogisticRegression(C=penalty, tol=1e-10, max_iter=1000).fit(v.double().numpy(), y[:, i].numpy())
        assert np.allclose(P[i], theirs.coef_.ravel(), atol=2e-3) and abs(b[i]-np.ravel(theirs.intercept_)[0])<2e-3
        theirs = SVC(kernel='linear', C=penalty, tol=1e-8).fit(v.double().numpy(), y[:, i].numpy())
        assert np.allclose(v@Q[i]+c[i], theirs.decision_function(v.double().numpy()), atol=1e-2)


@pytest.mark.parametrize('solve', [probes.ridge, probes.logistic, probes.svm])
def test_a_batch_is_its_episodes(solve):
    v, y = draw(3, (2, 2))
    P, b = solve(v, y)
    for e in np.ndindex(2, 2):
        one = solve(v[e], y[e])
        assert torch.allclose(P[e], one[0], atol=1e-4) and torch.allclose(b[e], one[1], atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_ridge_around_a_prior_is_a_plain_ridge_of_the_rest(seed):
    v, y = draw(seed)
    m = torch.randn(N, D, generator=torch.Generator().manual_seed(seed))
    P, b = probes.ridge(v, y, m, .5)
    theirs = Ridge(alpha=.5).fit(v.numpy(), (2*y.float()-1-v@m.T).numpy())
    assert np.allclose(P, m.numpy()+theirs.coef_, atol=1e-3) and np.allclose(b, theirs.intercept_, atol=1e-3)


def episode(seed=0, shots=S):
    gen = torch.Generator().manual_seed(seed)
    x = Features(torch.randn(shots, L, C, generator=gen))
    return Support(x, torch.rand(shots, N, generator=gen)<.4, torch.randn(N, 3, generator=gen), np.arange(N))


@torch.no_grad()
def test_names_need_no_example_and_lead_the_ridge():
    encoder, q = space(), 2*torch.rand(9, n_classes)-1                                   # cosines
    query = Features(torch.randn(5, L, C))
    name, around = probes.zero_shot(encoder, q), probes.ridge_around_name(encoder, q)
    assert can_score(name, 0) and can_score(around, 0)
    none = episode(shots=0)
    assert torch.allclose(around(none)(query), probes.PRIOR*name(none)(query), atol=1e-5)
    assert torch.equal(name(none)(query), name(episode(1))(query))                       # whatever the support
    assert not torch.allclose(around(episode(1))(query), probes.PRIOR*name(none)(query), atol=1e-2)
    strong = probes.ridge_around_name(encoder, q, alpha=1e6)
    assert torch.allclose(strong(episode(1))(query).diff(dim=0), probes.PRIOR*name(none)(query).diff(dim=0), atol=1e-3)
    s = episode(1)
    with pytest.raises(FsicError, match='name: the support does not say which labels'): name(Support(s.x, s.y, s.g))


@torch.no_grad()
def test_a_name_finds_its_class():
    "An image that excites one class is nearest to the label whose name says that class."
    encoder = space()
    encoder.vocabulary.mean.data.zero_()
    q = torch.eye(n_classes)[:N]
    points = name_points(encoder, q)
    W = encoder.vocabulary.classes.weight
    f = 200*torch.linalg.pinv(W)[:, :N].T[:, None].expand(N, L, C)
    encoder.proj.weight.data.zero_()
    encoder.proj.bias.data.zero_()
    assert (encoder.whole(f)@points.T).argmax(1).tolist()==list(range(N))


@torch.no_grad()
def test_selection_is_off():
    torch.manual_seed(0)
    model = RefinedConfig(C, 3, dim=8).build().eval()
    s, query = episode(2), torch.randn(5, L, C)
    off = probes.whole_only(model)
    assert model.cfg.select=='soft' and off.cfg.select=='none' and off.encoder is model.encoder
    places = torch.randperm(L)
    mixed = Support(Features(s.x.locals[:, places]), s.y, s.g)
    assert torch.allclose(off(s)(Features(query)), off(mixed)(Features(query[:, places])), atol=1e-4)
    assert not torch.allclose(off(s)(Features(query)), model(s)(Features(query)), atol=1e-2)


def collection(n=60):
    "Sixty images whose first feature says the first label."
    r = np.random.default_rng(0)
    y = r.random((n, N))<.4
    f = torch.randn(n, L, C, generator=torch.Generator().manual_seed(0))
    f[:, :, 0] += 6*torch.as_tensor(y[:, :1]).float()
    images = ImageSet([f'{i}.png' for i in range(n)], list('abcd'), y, 'toy')
    return SimpleNamespace(images=images, f=f)


class Store:
    def __init__(self, f): self.f = f
    def __getitem__(self, ids): return self.f[torch.as_tensor(ids)]


def test_cross_fit_never_learns_from_the_image_it_scores():
    toy = collection()
    exp = SimpleNamespace(images=toy.images, features=Store(toy.f))
    scores = probes.cross_fit(exp, space())
    y = torch.as_tensor(toy.images.labels)
    assert scores[y[:, 0], 0].mean()>scores[~y[:, 0], 0].mean()+.5                       # it learned
    wrong = toy.images.labels.copy()
    wrong[7] = ~wrong[7]                                                                 # another truth of image 7
    other = SimpleNamespace(images=ImageSet(toy.images.paths, toy.images.names, wrong, 'toy'), features=exp.features)
    assert torch.equal(probes.cross_fit(other, space())[7], scores[7])
    assert not torch.equal(probes.cross_fit(other, space()), scores)


def test_chance_is_the_same_wherever_an_image_comes():
    exp = SimpleNamespace(images=collection().images)
    method = probes.chance(exp)
    s = episode()
    a = method(s)(Features(torch.zeros(3, L, C), ids=np.array([5, 9, 11])))
    b = method(Support(s.x, s.y[:, [2, 0]], s.g[[2, 0]], np.array([2, 0])))(Features(torch.zeros(2, L, C), ids=np.array([11, 5])))
    assert torch.equal(b, a[[2, 0]][:, [2, 0]]) and can_score(method, 0)
