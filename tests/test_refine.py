"The refined model against a slow version with loops, and what must hold of any method."
from types import SimpleNamespace

import numpy as np, pytest, torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from sklearn.linear_model import Ridge

from fsic_nb.core import FsicError
from fsic_nb.refine import (Round, keep_helpful, log_mean_exp, plain_round, refine_round, score_change,
                            select_shares, solve_ridge)
from fsic_nb.refined import RefinedConfig, initial_model, plain_refined
from fsic_nb.runs import load_model, save_model
from fsic_nb.support import Configuration, Features, Support

C,W,D,L = 12,5,10,9

def make(S=7, N=4, Q=5, seed=0, lead=()):
    r = torch.Generator().manual_seed(seed)
    def randn(*s): return torch.randn(*lead, *s, generator=r)
    y = torch.rand(*lead, S, N, generator=r)<.35
    y[...,torch.arange(N),torch.arange(N)] = True
    return Support(Features(randn(S, L, C)), y, randn(N, W)),Features(randn(Q, L, C)),torch.rand(*lead, Q, N, generator=r)<.4

def model(seed=1, **kw):
    torch.manual_seed(seed)
    m = RefinedConfig(C, W, dim=D, **kw).build().eval()
    with torch.no_grad():
        for n,p in m.named_parameters():
            if p.dim()<2: p.add_(.02*torch.randn_like(p))       # dials off their start, fades included
    return m

def slow_prototypes(m, s):
    "One label at a time, one image at a time, with scikit-learn's ridge regression."
    x,w = m.encoder(s.x.locals),m.word(s.g)
    v,x,S,N = F.normalize(x.mean(-2), dim=-1),F.normalize(x, dim=-1),*s.y.shape
    pos = [[j for j in range(S) if s.y[j,i]] for i in range(N)]
    K = [torch.tensor(float(len(p))) for p in pos]
    mean = [F.normalize(sum(v[j] for j in p)/len(p), dim=-1) for p in pos]
    P = [F.normalize(mean[i]+m.first(K[i])*w[i], dim=-1) for i in range(N)]
    for r in range(m.cfg.rounds+1):
        z = [[m.beta(K[i], r)*(x[j]@P[i]) for i in range(N)] for j in range(S)]
        P = [slow_solve(m, r, i, z, x, s.y, K[i], m.mean(K[i], r)*mean[i]+m.prior(K[i], r)*w[i]) for i in range(N)]
    return torch.stack(P)

def slow_solve(m, r, i, z, x, y, K, prior):
    "The regression of one label."
    u,score = [],[]
    for j in range(len(x)):
        e = z[j][i].exp()
        score.append((e.mean().log()/m.beta(K, r)).item())
        if y[j,i] and m.cfg.claims: e = e*e/sum(z[j][l].exp() for l in range(y.shape[1]) if y[j,l])
        a = e/e.sum()
        if r==0: a = torch.full((L,), 1/L)
        elif m.cfg.select=='signed': a = torch.where(a>=1/L, a, 0.)
        u.append(sum(a[k]*x[j,k] for k in range(L))/a.sum())
    neg = [j for j in range(len(x)) if not y[j,i]]
    hard = np.exp([m.hard(K, r).item()*score[j] for j in neg]); hard = dict(zip(neg, hard/hard.sum()))
    omega = [1/K.item()+1e-5 if y[j,i] else m.others(K, r).item()*hard[j]+1e-5 for j in range(len(x))]
    U = torch.stack(u).double()
    fit = Ridge(alpha=m.lam(K, r).item(), fit_intercept=False, tol=1e-12).fit(U, y[:,i].double()-U@prior.double(), sample_weight=omega)
    return F.normalize(prior+torch.tensor(fit.coef_).float(), dim=-1)

@pytest.mark.parametrize('kw', [{}, dict(select='signed'), dict(claims=False)], ids=str)
@torch.no_grad()
def test_prototypes_equal_the_slow_version(kw):
    m,(s,_,_) = model(**kw),make()
    torch.testing.assert_close(m.prototypes(s), slow_prototypes(m, s), atol=2e-4, rtol=1e-3)

def test_a_round_finds_the_known_answer():
    "Two images of nine local features, three of a thing of their own, six of grass; each thing is an axis."
    shown = torch.full((2, 9), 2)
    shown[0,:3], shown[1,3:6] = 0, 1
    x, y, nothing, ten = torch.eye(3)[shown], torch.eye(2).bool(), torch.zeros(2, 3), torch.full((2,), 10.)
    P, sharp, faint = F.normalize(x.mean(1), dim=-1), torch.full((2,), 200.), torch.full((2,), 1e-5)
    assert P[0]@torch.eye(3)[2]>.8                             # the mean is nearly the axis of the grass
    P, a = refine_round(x, y, P, nothing, Round(sharp, faint, ten, ten, select='none'))
    torch.testing.assert_close(P[0], torch.tensor([5., -4., 2.])/45**.5, atol=1e-3, rtol=0)
    torch.testing.assert_close(a, torch.full((2, 2, 9), 1/9))
    P, a = refine_round(x, y, P, nothing, Round(sharp, faint, ten, ten))
    torch.testing.assert_close(P, torch.eye(3)[:2], atol=1e-3, rtol=0)
    assert torch.equal(keep_helpful(a[0,0]), shown[0]==0)

@given(st.integers(0, 10**6), st.sampled_from(['none', 'soft']))
@settings(max_examples=15, deadline=None)
def test_a_round_equals_the_plain_round(seed, rule):
    r = torch.Generator().manual_seed(seed)
    def randn(*s): return torch.randn(*s, generator=r)
    x, P, y = F.normalize(randn(7, L, D), dim=-1), F.normalize(randn(4, D), dim=-1), torch.rand(7, 4, generator=r)<.4
    y[:4,0] = False                                            # a label with few positives, or none
    how = Round(*(1+9*torch.rand(4, generator=r) for _ in range(4)), select=rule)
    torch.testing.assert_close(refine_round(x, y, P, P, how)[0], plain_round(x, y, P, P, how), atol=1e-4, rtol=1e-3)

@pytest.mark.parametrize('kw', [{}, dict(classes=7), dict(rounds=0)], ids=str)
@torch.no_grad()
def test_the_plain_method_gives_the_same_logits(kw):
    m,(s,q,_) = model(**kw),make()
    s.y[:,2] = False
    torch.testing.assert_close(plain_refined(m)(s.x.locals, s.y, s.g, q.locals), m(s)(q), atol=1e-3, rtol=1e-3)

@pytest.mark.parametrize('classes', [0, 7])
def test_a_configuration_begins_from_an_experiment(classes):
    "From the images, labels and words of the training labels; the same seed gives the same model."
    r = torch.Generator().manual_seed(0)
    store, g, head = torch.randn(20, L, C, generator=r), torch.randn(5, W, generator=r), (torch.randn(7, C, generator=r), torch.zeros(7))
    labels, training, names = (torch.rand(20, 5, generator=r)<.5).numpy(), np.arange(3, 18), list('abcde')
    images = SimpleNamespace(labels=labels, index=lambda ns: [names.index(n) for n in ns])
    split = SimpleNamespace(labels=lambda part: dict(train=['d', 'b', 'a'])[part])
    exp = SimpleNamespace(images=images, split=split, features=store, words=g, training=training, head=head)
    cfg = RefinedConfig(C, W, dim=D, classes=classes)
    one, again, other = (cfg.initial_model(exp, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[k], again[k]) for k in one)
    assert classes or not torch.equal(one['encoder.mlp.1.weight'], other['encoder.mlp.1.weight'])
    own = [3, 1, 0]
    want = initial_model(cfg, store, training, torch.as_tensor(labels[training][:,own]), g[own], head).state_dict()
    for k in ('word.weight', 'word.bias', 'encoder.proj.weight'): torch.testing.assert_close(one[k], want[k])

KINDS = [{}, dict(select='signed'), dict(select='share'), dict(select='none'), dict(solve='mean'), dict(push=False), dict(word=False), dict(rounds=0),
         dict(rounds=4), dict(query='mean'), dict(claims=False), dict(classes=7)]

@pytest.mark.parametrize('kw', KINDS, ids=str)
@torch.no_grad()
def test_batches_equal_one_by_one(kw):
    m,(s,q,_) = model(**kw),make(lead=(3,))
    many = m(s)(q)
    for e in range(3):
        one = Support(Features(s.x.locals[e]), s.y[e], s.g[e])
        torch.testing.assert_close(m(one)(Features(q.locals[e])), many[e], atol=2e-4, rtol=1e-3)

@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(KINDS))
@torch.no_grad()
def test_order_does_not_matter(seed, kw):
    m,(s,q,_) = model(**kw),make(seed=seed)
    r = torch.Generator().manual_seed(seed)
    j,i,k = torch.randperm(7, generator=r),torch.randperm(4, generator=r),torch.randperm(5, generator=r)
    other = m(Support(Features(s.x.locals[j]), s.y[j][:,i], s.g[i]))(Features(q.locals[k]))
    torch.testing.assert_close(other, m(s)(q)[k][:,i], atol=5e-4, rtol=1e-3)

@pytest.mark.parametrize('kw', KINDS, ids=str)
@torch.no_grad()
def test_a_label_without_pictures_falls_back_on_its_word(kw):
    m,(s,q,_) = model(**kw),make()
    s.y[:,2] = False
    P = m.prototypes(s)
    assert P.isfinite().all() and m(s)(q).isfinite().all()
    torch.testing.assert_close(P.norm(dim=-1), torch.ones(4))

@torch.no_grad()
def test_one_image_that_carries_everything():
    m,(s,q,_) = model(),make(S=4)
    s.y[:] = True                                              # nobody is without any label: nobody pushes
    assert m(s)(q).isfinite().all()

@given(st.integers(0, 10**6), st.floats(.1, 30))
def test_loss_change_is_exact_and_signed(seed, beta):
    c,beta = torch.randn(L, generator=torch.Generator().manual_seed(seed)).double(),torch.tensor(beta).double()
    a,all_ = (beta*c).softmax(-1),log_mean_exp(c, beta)
    slow = torch.stack([log_mean_exp(torch.cat([c[:k], c[k+1:]]), beta)-all_ for k in range(L)])
    torch.testing.assert_close(score_change(a, beta)[a<.999], slow[a<.999], atol=1e-8, rtol=1e-6)
    assert c.mean()-1e-9<=all_<=c.max()+1e-9
    clear = (a-1/L).abs()>1e-9
    assert ((slow<0)==keep_helpful(a))[clear].all()
    for rule in ('soft', 'signed', 'share', 'none'): assert select_shares(a, rule).sum().item()==pytest.approx(1)

def test_every_part_learns():
    m,(s,q,y) = model().train(),make(lead=(2,))
    opt,losses = torch.optim.Adam(m.parameters(), 1e-2),[]
    for _ in range(30):
        loss = m.loss(s, q, y)
        opt.zero_grad(); loss.backward(); opt.step(); losses.append(loss.item())
    assert losses[-1]<losses[0]-.2
    assert all(p.grad is not None and p.grad.isfinite().all() for p in m.parameters())

@torch.no_grad()
def test_saved_and_read(tmp_path):
    m,(s,q,_) = model(classes=7, rounds=1),make()
    save_model(m, tmp_path/'m')
    again = load_model(tmp_path/'m')
    assert again.cfg==m.cfg
    torch.testing.assert_close(again(s)(q), m(s)(q))

def test_beginning_needs_a_classifier_for_the_vocabulary():
    cfg = RefinedConfig(C, W, dim=D, classes=7)
    with pytest.raises(FsicError, match='use classes=0'): initial_model(cfg, None, np.arange(3), torch.ones(3, 2).bool(), torch.ones(2, W))
    with pytest.raises(FsicError, match='rounds is -1'): RefinedConfig(C, W, rounds=-1)
    with pytest.raises(FsicError, match='unknown key'): Configuration.from_dict(dict(kind='refined', channels=1, word_dim=1, round=2))

def test_large_supports_are_solved_on_several_threads():
    "More than 150 rows: PyTorch's batched LU fails at random there."
    r,threads = torch.Generator().manual_seed(0),torch.get_num_threads()
    u,y = F.normalize(torch.randn(24, 160, 32, generator=r), dim=-1),torch.rand(24, 160, generator=r)
    omega,lam,m = torch.rand(24, 160, generator=r)+.1,torch.rand(24, generator=r)+.1,torch.randn(24, 32, generator=r)
    want = solve_ridge(*(x.double() for x in (u[:,:100], y[:,:100], omega[:,:100], lam, m)))
    torch.testing.assert_close(solve_ridge(u[:,:100], y[:,:100], omega[:,:100], lam, m).double(), want, atol=1e-4, rtol=1e-3)
    A = u.double()@u.double().mT+torch.diag_embed(lam[:,None].double()/omega.double())
    want = m.double()+(u.double().mT@torch.linalg.inv(A)@(y.double()-(u.double()@m.double()[...,None])[...,0])[...,None])[...,0]
    try:
        torch.set_num_threads(2)
        for _ in range(20): torch.testing.assert_close(solve_ridge(u, y, omega, lam, m).double(), want, atol=1e-4, rtol=1e-3)
    finally: torch.set_num_threads(threads)
