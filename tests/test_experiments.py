"The pieces of tools/experiments.py that measure the collapse: exchanges and repairs do what they are called."
import numpy as np, pytest, torch
import torch.nn.functional as F

import experiments
from fsic_nb.embed import Features, Support
from fsic_nb.model import Config

C,W,L,N = 12,5,9,4


def support(seed=0):
    r = torch.Generator().manual_seed(seed)
    return Support(Features(torch.randn(N, L, C, generator=r)), torch.eye(N, dtype=torch.bool), torch.randn(N, W, generator=r))


def repaired(repair=''):
    torch.manual_seed(0)
    m = experiments.Repaired(Config(C, W, dim=16, heads=2, prototype='wagp'))
    m.repair = repair
    return m


def test_pictures_and_words_are_exchanged():
    s, seen = support(), {}
    for what in ('as they are', 'pictures', 'words'): experiments.exchanged(lambda t: seen.setdefault(what, t), what)(s)
    assert seen['as they are'] is s
    assert torch.equal(seen['pictures'].x.locals, s.x.locals.flip(0)) and torch.equal(seen['pictures'].g, s.g)
    assert torch.equal(seen['words'].x.locals, s.x.locals) and torch.equal(seen['words'].g, s.g[[-1, 0, 1, 2]])
    assert not (seen['pictures'].x.means==s.x.means).all(-1).any()                   # no label keeps its own picture


@torch.no_grad()
def test_the_residual_lets_pictures_through():
    s, far = support(), {}
    other = experiments.exchanged(lambda t: t, 'pictures')(s)
    for repair in ('', 'residual'):
        m = repaired(repair).eval()
        m.weight.fill_(3.)
        far[repair] = (1-F.cosine_similarity(m.prototypes(s)[0], m.prototypes(other)[0], dim=-1)).mean()
    assert far['residual']>1.2*far['']


def test_words_drop_in_training_alone():
    s, m = support(), repaired('word dropout')
    t = [m.train(mode).prototypes(s)[2] for mode in (False, True)]
    assert not torch.equal(*t) and torch.allclose(t[0], m.embed(s.x, s.g)[1])
    dropped = torch.isclose(t[1], t[0].mean(0)).all(-1)
    assert torch.equal(t[1][~dropped], t[0][~dropped])


def test_summary_is_paired():
    r = {k: np.array([.5, .6, .7]) for k in experiments.SHOTS}
    row = experiments.summary(r, {k: v-.1 for k,v in r.items()})
    assert row['map1']==60 and row['diff5']==10 and row['diff_ci5']==pytest.approx(0, abs=1e-9)
