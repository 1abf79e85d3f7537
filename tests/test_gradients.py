"The gradients of every loss and of every step that learns, in 64 bits, against differences."
import numpy as np, pytest, torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from fsic_nb.baselines import LasoConfig, RelationConfig
from fsic_nb.embed import cm_loss, cos_score, score
from fsic_nb.interact import ChannelGate, CrossInteraction, DynamicConv
from fsic_nb.lcm import leave_one_out, pool, score_without
from fsic_nb.model import PaperConfig
from fsic_nb.prototypes import WAGP
from fsic_nb.refine import Round, attend, log_mean_exp, refine_round, solve_mean, solve_ridge
from fsic_nb.refined import RefinedConfig
from fsic_nb.support import Features, Support, mean_bce

C, W, D, L, S, N, Q = 4, 3, 6, 4, 4, 3, 3
Y = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
YQ = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, 1]]).bool()
KNOWN = Y|torch.tensor([[1, 1, 0], [1, 1, 1], [1, 1, 1], [0, 1, 1]]).bool()

def draw(*shape, seed=0):
    "Numbers of 64 bits that have a gradient."
    return torch.from_numpy(np.random.default_rng([seed, *shape]).normal(size=shape)).requires_grad_()

def module(m, seed=1):
    "A module of 64 bits, with weights that are not those of a start: what begins as zero would hide its inputs."
    torch.manual_seed(seed)
    m = m.double().eval()
    with torch.no_grad():
        for p in m.parameters(): p.add_(.1*torch.randn_like(p))
    return m

def right(f, *inputs): assert gradcheck(f, inputs, eps=1e-6, atol=1e-6, rtol=1e-4)

CONFIGS = dict(wagp=PaperConfig(C, W, D, 2, 0., prototype='wagp'), cross=PaperConfig(C, W, D, 2, 0.), words=PaperConfig(C, W, D, 2, 0., prototype='words'),
               refined=RefinedConfig(C, W, D), signed=RefinedConfig(C, W, D, select='signed', rounds=1), mean=RefinedConfig(C, W, D, solve='mean', rounds=1),
               vocabulary=RefinedConfig(C, W, D, 5, rounds=1), relation=RelationConfig(C, D, 5, 0.), laso=LasoConfig(C, D, 5))

@pytest.mark.parametrize('name', CONFIGS)
def test_a_loss_by_images_words_and_weights(name):
    "The training loss of each method; the paper's trains without LCM, whose choice has no gradient."
    torch.manual_seed(0)
    m = module(CONFIGS[name].build())
    if name in ('wagp', 'cross', 'words'): m.train()
    some = {k: p for k, p in m.named_parameters() if p.requires_grad and p.numel()<=64}
    def loss(f, g, fq, *weights):
        support, query = Support(Features(f), Y, g, known=KNOWN), Features(fq)
        query.known = YQ|(torch.arange(N)<2)
        return torch.func.functional_call(Loss(m), {f'm.{k}': w for k, w in zip(some, weights)}, (support, query, YQ))
    f, g, fq = draw(S, L, C), draw(N, W), draw(Q, L, C)
    if name in ('relation', 'laso'): g.requires_grad_(False)                    # they read no word
    assert gradcheck(loss, (f, g, fq, *(p.detach().clone().requires_grad_() for p in some.values())), atol=1e-5, rtol=1e-3, fast_mode=True)

class Loss(torch.nn.Module):
    "A model as a function of its weights."
    def __init__(self, m):
        super().__init__()
        self.m = m
    def forward(self, *batch): return self.m.loss(*batch)

def test_the_steps_of_the_interaction():
    torch.manual_seed(0)
    gate, conv = module(ChannelGate(D, 5)), module(DynamicConv(D, 3, 0.))
    right(lambda x, q: gate(x, q), draw(N, L, D), draw(N, D))
    assert torch.allclose(gate(x := draw(N, L, D), q := draw(N, D)), gate(x, q, gate.image_logits(x)))
    right(lambda x, w: conv(x, w), draw(N, L, D), draw(N, 2*D*3))
    keep = torch.tensor(np.random.default_rng(0).random((S, N, L))<.6)
    m = module(CrossInteraction(C, D, 2, 0.))
    def prototypes(f, t): return m(m.encode_images(f), m.encode_words(t), Y, keep)
    assert gradcheck(prototypes, (draw(S, L, C), draw(N, D)), atol=1e-5, rtol=1e-3, fast_mode=True)
    w = module(WAGP(C, D, 2, 0.))
    def guided(f, v, t): return w(w.encode_images(f), Y, v, t)
    assert gradcheck(guided, (draw(S, L, C), draw(S, D), draw(N, D)), atol=1e-5, rtol=1e-3, fast_mode=True)

def test_loss_change():
    "The cross-modality loss by what is embedded; a loss change by the local features it is a change of."
    x, b, t = draw(S, L, D), draw(D), draw(N, D)
    right(cos_score, .9*torch.tanh(draw(5)).detach().requires_grad_())
    right(lambda v, t: cm_loss(v, t, Y, KNOWN), draw(S, D), t)
    right(score, draw(2, D), t)
    right(pool, x, draw(S, L, seed=1), b)
    right(score_without, x, b, t)
    right(lambda x, b, t: leave_one_out(x, b, t, Y, KNOWN), x, b, t)
    right(lambda s: mean_bce(s, Y, KNOWN), draw(S, N))

@pytest.mark.parametrize('kw', [dict(), dict(select='signed'), dict(solve='mean'), dict(claims=False)], ids=str)
def test_a_round_of_refinement(kw):
    "By local features, prototypes, prior and every strength."
    def unit(x): return F.normalize(x, dim=-1)
    def round(x, P, m, beta, lam, hard, others):
        how = Round(*(v.exp() for v in (beta, lam, hard, others)), **kw)
        return refine_round(unit(x), Y, unit(P), m, how, KNOWN)[0]
    right(round, draw(S, L, D), draw(N, D), draw(N, D, seed=1), *(draw(N, seed=k) for k in range(2, 6)))

def test_the_steps_of_a_round():
    right(lambda c, b: log_mean_exp(c, b.exp()), draw(N, L), draw(N))
    right(lambda c, b: attend(c, b.exp(), Y), draw(S, N, L), draw(N))
    u, m, lam = draw(N, S, D), draw(N, D), draw(N)
    right(lambda u, omega, lam, m: solve_ridge(u, Y.mT.double(), omega.exp(), lam.exp(), m), u, draw(N, S), lam, m)
    right(lambda u, w, lam, m: solve_mean(u, Y.mT.double(), w.softmax(-1), lam.exp(), m), u, draw(N, S), lam, m)
