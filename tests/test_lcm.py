"All forms of Loss Change Measurement are one idea: autograd, Gram form, exact change, masked pooling."
import pytest, torch
from hypothesis import given, settings, strategies as st
from fsic_nb.embed import cm_loss, score
from fsic_nb.lcm import gram, keep_literal, keep_share, keep_signed, lcm_gradient, lcm_scores, leave_one_out, normalise_rho, pool
import torch.nn.functional as F

@st.composite
def supports(draw):
    "Embedded places, bias, words and labels of a random support, some labels without any positive."
    S,N,L,D = draw(st.integers(1, 6)),draw(st.integers(1, 5)),draw(st.integers(2, 20)),draw(st.integers(2, 16))
    gen = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    r = lambda *s: torch.randn(*s, generator=gen, dtype=torch.float64)
    return r(S, L, D),.3*r(D),r(N, D),torch.rand(S, N, generator=gen)<draw(st.sampled_from([0., .2, .5, 1.]))

def autograd_loop(x, b, t, y, steps, lr=1e-4):
    "The author's loop, literally: autograd, torch's Adam, min-max from the second iteration on."
    rho = torch.ones(x.shape[:2], dtype=x.dtype, requires_grad=True)
    opt,S = torch.optim.Adam([rho], lr),0.
    for it in range(1, steps+1):
        if it>=2: rho.data = torch.from_numpy(normalise_rho(rho.data.numpy()))
        opt.zero_grad(); cm_loss(pool(x, rho, b), t, y).backward()
        a = min(1-1/(it+1), .95) if it>1 else 0.
        S = a*S+(1-a)*(rho.grad*rho.data).abs()
        opt.step()
    return S

@settings(max_examples=25, deadline=None)
@given(supports())
def test_gram_loop_is_the_autograd_loop(s):
    want,got = autograd_loop(*s, steps=40),lcm_scores(*s, steps=40)
    assert ((got-want).abs()<=1e-4*want.abs()+1e-14).all()

@settings(max_examples=50, deadline=None)
@given(supports())
def test_leave_one_out_is_masked_pooling(s):
    x,b,t,y = s
    def losses(v): return F.binary_cross_entropy_with_logits(score(v, t), y.double(), reduction='none')
    L,full = x.shape[1],losses(x.mean(1)+b)
    want = torch.stack([losses(x[:,torch.arange(L)!=k].mean(1)+b)-full for k in range(L)], -1)
    assert torch.allclose(leave_one_out(*s), want, atol=1e-8)

def test_float32_leave_one_out_at_a_real_size():
    gen = torch.Generator().manual_seed(0)
    x,b,t = torch.randn(16, 49, 512, generator=gen),torch.randn(512, generator=gen),torch.randn(16, 512, generator=gen)
    y = torch.rand(16, 16, generator=gen)<.2
    want = leave_one_out(x.double(), b.double(), t.double(), y)
    assert (leave_one_out(x, b, t, y)-want).abs().max()<1e-5

@settings(max_examples=10, deadline=None)
@given(supports())
def test_gradcheck_of_the_closed_form(s):
    x,b,t,y = s
    class Closed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, rho):
            ctx.save_for_backward(torch.from_numpy(lcm_gradient(gram(x, b, t), rho.numpy(), y.numpy())))
            return cm_loss(pool(x, rho, b), t, y)
        @staticmethod
        def backward(ctx, up): return up*ctx.saved_tensors[0]
    rho = torch.rand(x.shape[:2], dtype=torch.float64, generator=torch.Generator().manual_seed(1)).add_(.1).requires_grad_()
    assert torch.autograd.gradcheck(Closed.apply, rho, atol=1e-6)

@settings(max_examples=25, deadline=None)
@given(supports(), st.randoms(use_true_random=False))
def test_permutations(s, random):
    x,b,t,y = s
    perm = lambda n: torch.tensor(random.sample(range(n), n))
    js,ii,ks = perm(x.shape[0]),perm(t.shape[0]),perm(x.shape[1])
    d = leave_one_out(x, b, t, y)
    assert torch.allclose(leave_one_out(x[js][:,ks], b, t[ii], y[js][:,ii]), d[js][:,ii][...,ks])
    one = lcm_scores(x, b, t, y, steps=1)          # one step: exact, no chaos to amplify the order of sums
    assert torch.allclose(lcm_scores(x[js][:,ks], b, t[ii], y[js][:,ii], steps=1), one[js][:,ks])

@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.floats(0, 1), st.integers(0, 2**31))
def test_keep_rules(L, share, seed):
    s = torch.randn(5, L, generator=torch.Generator().manual_seed(seed))
    assert (keep_share(s, share).sum(-1)==max(1, round(share*L))).all()
    kept = keep_share(s, share)
    assert (s.masked_fill(~kept, torch.inf).amin(-1)>=s.masked_fill(kept, -torch.inf).amax(-1)).all()
    signed = keep_signed(s)
    assert signed.any(-1).all() and (signed==(s>0))[(s>0).any(-1)].all()

@pytest.mark.parametrize('value,kept', [(0., False), (6.18e-9, False), (6.20e-9, True), (1., True)])
def test_literal_rule(value, kept): assert keep_literal(torch.tensor([value], dtype=torch.float64)).item() is kept
