"The pieces of tools/experiments.py that measure the paper's row: exchanges, changes, swaps and stages do what they are called."
import numpy as np, pytest, torch
import torch.nn.functional as F

import experiments
from fsic_nb.embed import cm_loss, score
from fsic_nb.experiment import prepare
from fsic_nb.support import Features, Support, mean_prototypes
from fsic_nb.model import PaperConfig, mean_in_space

C,W,L,N = 12,5,9,4


def support(seed=0):
    r = torch.Generator().manual_seed(seed)
    return Support(Features(torch.randn(N, L, C, generator=r)), torch.eye(N, dtype=torch.bool), torch.randn(N, W, generator=r))


def built(cls=experiments.PaperModel, **kw):
    torch.manual_seed(0)
    return cls(PaperConfig(C, W, dim=8, heads=2, **{'prototype': 'wagp', **kw})).eval()


def test_images_and_words_are_exchanged():
    s, seen = support(), {}
    for what in ('nothing', 'images', 'words'): experiments.exchanged(lambda t: seen.setdefault(what, t), what)(s)
    assert seen['nothing'] is s
    assert torch.equal(seen['images'].x.locals, s.x.locals.flip(0)) and torch.equal(seen['images'].g, s.g)
    assert torch.equal(seen['words'].x.locals, s.x.locals) and torch.equal(seen['words'].g, s.g[[-1, 0, 1, 2]])
    assert not (seen['images'].x.means==s.x.means).all(-1).any()                   # no label keeps its own image


@torch.no_grad()
def test_the_residual_lets_images_through():
    s, far = support(), {}
    other = experiments.exchanged(lambda t: t, 'images')(s)
    for cls in (experiments.PaperModel, experiments.Residual):
        m = built(cls)
        if cls is experiments.Residual: m.weight.fill_(3.)
        far[cls] = (1-F.cosine_similarity(m.prototypes(s)[0], m.prototypes(other)[0], dim=-1)).mean()
    assert far[experiments.Residual]>1.2*far[experiments.PaperModel]


@torch.no_grad()
def test_the_query_loss_leaves_the_words_out_of_it():
    s, q, y = support(), Features(torch.randn(6, L, C)), torch.rand(6, N)<.4
    one, both = built(experiments.QueryLoss), built()
    assert torch.allclose(both.loss(s, q, y)-one.loss(s, q, y), cm_loss(*both.embed(s.x, s.g), s.y), atol=1e-5)


def test_summary_is_paired():
    r = {k: np.array([.5, .6, .7]) for k in experiments.SHOTS}
    row = experiments.summary(r, {k: v-.1 for k,v in r.items()})
    assert row['map1']==60 and row['diff5']==10 and row['diff_ci5']==pytest.approx(0, abs=1e-9)


@pytest.fixture(scope='module')
def exp():
    "The small set of scenes."
    return prepare('scenes', quick=True, say=lambda line: None)


@pytest.mark.parametrize('change', experiments.MAKES)
def test_every_change_begins_with_the_same_weights(exp, change):
    cfg = PaperConfig(exp.features.channels, exp.words.shape[1], dim=16, prototype='wagp')
    model, plain = (experiments.MAKES[c](cfg, exp).state_dict() for c in (change, ''))
    assert all(torch.equal(model[k], plain[k]) for k in plain) and set(model)-set(plain)==({'weight'} if change=='residual' else set())


def scripted(monkeypatch, scores):
    "Validation that says what a list says, and a training that does nothing; the checks that were made."
    made = []
    def maps(exp, methods, part, n):
        made.append(part)
        return {name: {k: np.full(2, scores[min(len(made), len(scores))-1]/100) for k in experiments.SHOTS} for name in methods}
    monkeypatch.setattr(experiments, 'score_maps', maps)
    monkeypatch.setattr(experiments, 'train_step', lambda *a: 0.)
    monkeypatch.setattr(experiments, 'load_one', lambda exp, eps: None)
    monkeypatch.setitem(experiments.MAKES, '', lambda cfg, exp, seed: built())
    monkeypatch.setitem(experiments.ENOUGH, 'scenes', 2000)
    return made


ARM = dict(prototype='wagp', start='identity', lr=1e-3, shots=5)

def test_an_arm_ends_when_validation_rises_no_more(exp, monkeypatch):
    made = scripted(monkeypatch, [20, 30, 40, 39, 38, 39, 37, 39, 40, 90])
    r = experiments.follow(exp, ARM)
    assert (r['end'], r['best_step'], r['best'])==('flat or falling', 200, 40) and len(r['curve'])==2+1+experiments.PATIENCE and set(made)=={'val'}


def test_an_arm_that_still_rises_says_so(exp, monkeypatch):
    scripted(monkeypatch, list(range(20, 60)))
    r = experiments.follow(exp, ARM)
    assert r['end']=='the limit of steps' and r['best_step']==2000==r['curve'][-1]['step']


def test_the_random_start_has_time_for_its_plateau(exp, monkeypatch):
    scripted(monkeypatch, [20]*11+[30]+[25]*99)
    r = experiments.follow(exp, dict(ARM, start='random'))
    assert r['best_step']==1100 and r['end']=='flat or falling'


def test_arms_are_kept(monkeypatch, exp, tmp_path):
    monkeypatch.setattr(experiments, 'home', lambda: tmp_path)
    asked = []
    monkeypatch.setattr(experiments, 'follow', lambda exp, a, seed: asked.append(seed) or dict(best=len(asked)))
    assert [experiments.arm(exp, ARM, seed)['best'] for seed in (0, 1, 0, 1)]==[1, 2, 1, 2] and asked==[0, 1]


@pytest.mark.parametrize('prototype', ['wagp', 'cross'])
@torch.no_grad()
def test_stages_begin_with_the_mean_and_end_with_the_model(prototype):
    m, s = built(prototype=prototype), support()
    lift = lambda x: Features(x.locals[None])
    query, one = Features(torch.randn(11, L, C)), Support(lift(s.x), s.y[None], s.g[None])
    found = experiments.along(m, one, lift(query))
    assert list(found)==[x for x in experiments.STAGES if prototype=='cross' or x!='gate and convolution']
    assert torch.allclose(found['mean of W_v f'][0], mean_in_space(m)(s)(query), atol=1e-4)
    assert torch.allclose(found['whole model'][0], m(s)(query), atol=1e-4)
    assert torch.allclose(found['mean of W_v f'][1], 1-(1-found['mean of W_v f'][0]/20)**2/2, atol=1e-4)     # of the same cosines
    assert not torch.allclose(found['attention'][0], found['value and output'][0], atol=1e-3)


@pytest.mark.parametrize('prototype', ['wagp', 'cross'])
@torch.no_grad()
def test_every_swap_changes_one_piece_of_a_copy(prototype):
    m, query, r = built(prototype=prototype), Features(torch.randn(11, L, C)), torch.Generator().manual_seed(0)
    # two examples of each label, so that the weights of the images count
    s = Support(Features(torch.randn(2*N, L, C, generator=r)), torch.eye(N, dtype=torch.bool).repeat(2, 1), torch.randn(N, W, generator=r))
    before, scores = {k: v.clone() for k, v in m.state_dict().items()}, {}
    for what in experiments.SWAPS:
        if experiments.fits(m, what): scores[what] = experiments.swapped(m, what)(s)(query)
    assert all(torch.equal(before[k], v) for k, v in m.state_dict().items())
    assert torch.equal(scores['nothing'], m(s)(query))
    for what in set(scores)-{'nothing', 'no selection'}: assert not torch.allclose(scores[what], scores['nothing'], atol=1e-3), what
    assert ('even weights of the images' in scores)==(prototype=='wagp') and ('no selection' in scores)==(prototype=='cross')
    # with all of them a prototype is the mean of local features of one length
    x = F.normalize(m.embed.visual(s.x.locals), dim=-1)*8**.5
    after = m.interact.word_attention.after
    P = mean_prototypes(after(x.mean(-2)), s.y) if prototype=='wagp' else after(mean_prototypes(x.mean(-2), s.y))
    assert torch.allclose(scores['all of these'], score(m.embed.visual(query.means), P), atol=1e-3)


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
