"The pieces of tools/experiments.py that measure the collapse: exchanges and repairs do what they are called."
import numpy as np, pytest, torch
import torch.nn.functional as F

import experiments
from fsic_nb.experiment import prepare
from fsic_nb.support import Features, Support
from fsic_nb.model import PaperConfig

C,W,L,N = 12,5,9,4


def support(seed=0):
    r = torch.Generator().manual_seed(seed)
    return Support(Features(torch.randn(N, L, C, generator=r)), torch.eye(N, dtype=torch.bool), torch.randn(N, W, generator=r))


def repaired(repair=''):
    torch.manual_seed(0)
    m = experiments.Repaired(PaperConfig(C, W, dim=16, heads=2, prototype='wagp'))
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


@pytest.fixture(scope='module')
def exp():
    "The small set of scenes."
    return prepare('scenes', quick=True, say=lambda line: None)


@pytest.mark.parametrize('repair', experiments.REPAIRS)
def test_every_repair_trains(exp, repair):
    model, curve = experiments.repaired(exp, repair, 2, 2)
    assert model.repair==repair and curve==[] and all(torch.isfinite(p).all() for p in model.parameters())
    W = model.embed.visual.weight
    principal = torch.allclose(W@W.T, torch.eye(len(W)), atol=1e-3)      # orthonormal rows, untouched by training
    assert principal==('frozen' in repair) and W.requires_grad!=('frozen' in repair)


def test_what_moves_prototypes(exp):
    found = {}
    for repair, weight in (('as written', 0.), ('residual', 5.)):        # a residual so long that images are all there is
        model, _ = experiments.repaired(exp, repair, 1, 2)
        model.weight.data.fill_(weight)
        found[repair] = experiments.moved(exp, model.eval(), 1)
    assert [r['shots'] for r in found['residual']]==list(experiments.SHOTS)
    for r in found['residual']: assert r['words']<.01 and r['pictures']>10*r['words']
    for r in sum(found.values(), []): assert 0<r['entropy']<=1 and 0<r['apart']<2 and -1<=r['cosine']<=1


def test_the_curve_is_measured_every_hundred_steps(exp, monkeypatch):
    maps = {k: np.array([.5, .6]) for k in experiments.SHOTS}
    monkeypatch.setattr(experiments, 'train_step', lambda *a: 0.)
    monkeypatch.setattr(experiments, 'score_maps', lambda exp, methods, part, n: {'m': maps})
    _, curve = experiments.repaired(exp, 'as written', 200, 2)
    assert [c['step'] for c in curve]==[100, 200] and curve[0]['map1']==55


def test_labels_are_cut_by_tasks(exp, monkeypatch):
    asked = []
    maps = {k: np.array([.5, .6]) for k in experiments.SHOTS}
    plan = experiments.argparse.Namespace(schedule=experiments.Schedule())
    monkeypatch.setattr(experiments, 'make_plan', lambda m, exp, **kw: plan)
    monkeypatch.setattr(experiments, 'train_as', lambda exp, m, split, schedule: asked.append((m, len(split.train), schedule.steps)))
    monkeypatch.setattr(experiments, 'score_maps', lambda exp, methods, part, n: {next(iter(methods)): maps})
    whole = experiments.replace(exp, split=experiments.replace(exp.split, train=exp.split.train*7))
    rows = experiments.labels(whole, 2)
    assert [r['base_labels'] for r in rows[::2]]==[16, 80, 400] and asked[0]==('wagp', 1, 500) and asked[1]==('refined', 1, 120)
