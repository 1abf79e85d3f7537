"The batched method against loops, permutations and switches, over random densities of labels."
from types import SimpleNamespace

import pytest, torch
from hypothesis import given, settings, strategies as st
from fsic_nb.core import FsicError
from fsic_nb.support import Features, Support
from fsic_nb.embed import score
from fsic_nb.interact import ChannelGate, CrossInteraction
from fsic_nb.model import PaperConfig, PaperModel, mean_in_space
from fsic_nb.prototypes import WAGP, positives
from fsic_nb.support import mean_prototypes

C,W,D,L = 6,10,16,9
SWITCHES = [dict(prototype='wagp'), dict(), dict(parts=()), dict(parts=('conv', 'gate')), dict(lcm='none'),
            dict(lcm='exact', keep='share'), dict(lcm='label', keep='signed')]

def make(seed, S=6, N=4, density=.4, lead=()):
    gen = torch.Generator().manual_seed(seed)
    r = lambda *s: torch.randn(*lead, *s, generator=gen)
    return Support(Features(r(S, L, C)), torch.rand(*lead, S, N, generator=gen)<density, r(N, W)),Features(r(5, L, C))

def model(seed=0, **kw):
    torch.manual_seed(seed)
    return PaperModel(PaperConfig(C, W, dim=D, heads=2, **kw)).eval()

def interact(m, s, t, keep): return m(m.encode_images(s.x.locals), m.encode_words(t), s.y, keep)

densities = st.sampled_from([0., .1, .4, 1.])

@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), densities)
def test_wagp_is_its_loop(seed, density):
    (s,_),m = make(seed, density=density),model(prototype='wagp')
    with torch.no_grad():
        P,v,t = m.prototypes(s)
        w,x = m.interact.word_attention,m.interact.norm(m.interact.place(s.x.locals))
        for i in range(t.shape[0]):
            js = s.y[:,i].nonzero()[:,0]
            if not len(js): assert torch.equal(P[i], t[i]); continue
            u = torch.stack([w(m.interact.norm(t[i]), x[j], torch.ones(L).bool()) for j in js])
            assert torch.allclose(P[i], (score(v[js], t[i:i+1]).softmax(0)*u).sum(0), atol=1e-5)

@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), densities, st.sampled_from([0., .2, 1.]))
def test_interaction_is_its_loop(seed, density, kept):
    s,_ = make(seed, density=density)
    torch.manual_seed(0)
    m = CrossInteraction(C, D, 2).eval()
    keep,t = torch.rand(*s.y.shape, L)<kept,torch.randn(s.y.shape[1], D)
    with torch.no_grad():
        P,x,q = interact(m, s, t, keep),m.norm(m.place(s.x.locals)),m.norm(t)
        for i in range(len(t)):
            js = s.y[:,i].nonzero()[:,0]
            if not len(js): assert torch.equal(P[i], t[i]); continue
            places = torch.cat([x[j][keep[j,i]] for j in js])
            if not len(places): places = torch.cat([x[j] for j in js])
            places = m.parts['conv'](m.parts['gate'](places[None], q[i:i+1]), m.parts['conv'].write(t[i:i+1]))
            assert torch.allclose(P[i], m.word_attention(q[i:i+1], places, torch.ones(places.shape[:2]).bool())[0], atol=1e-5)

@pytest.mark.parametrize('kw', SWITCHES, ids=str)
def test_permutations_and_batches(kw):
    m = model(**kw)
    for seed in range(5):
        (s,q),gen = make(seed),torch.Generator().manual_seed(seed)
        js,ii,ks = (torch.randperm(n, generator=gen) for n in (6, 4, L))
        with torch.no_grad():
            want = m(s)(q)
            assert torch.allclose(m(Support(Features(s.x.locals[js]), s.y[js], s.g))(q), want, atol=1e-3)
            assert torch.allclose(m(Support(s.x, s.y[:,ii], s.g[ii]))(q), want[:,ii], atol=1e-3)
            assert torch.allclose(m(Support(Features(s.x.locals[:,ks]), s.y, s.g))(q), want, atol=1e-3)
            both,qs = make(seed, lead=(3,))
            got = m(both)(qs)
            for e in range(3):
                one = Support(Features(both.x.locals[e]), both.y[e], both.g[e])
                assert torch.allclose(got[e], m(one)(Features(qs.locals[e])), atol=1e-3)

def test_a_shut_gate_is_no_gate():
    torch.manual_seed(0)
    plain,gated = CrossInteraction(C, D, 2, parts=()).eval(),CrossInteraction(C, D, 2, parts=('gate',)).eval()
    gated.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        gate = gated.parts['gate']
        s,_ = make(0); t = torch.randn(4, D); keep = torch.rand(*s.y.shape, L)<.5
        assert not torch.allclose(interact(gated, s, t, keep), interact(plain, s, t, keep), atol=1e-3)
        gate.up.weight.zero_(); gate.up.bias.fill_(-torch.inf)
        assert torch.equal(interact(gated, s, t, keep), interact(plain, s, t, keep))

@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), densities)
def test_positives(seed, density):
    y = torch.rand(3, 7, 5, generator=torch.Generator().manual_seed(seed))<density
    idx,mask = positives(y)
    for e in range(3):
        for i in range(5): assert idx[e,i][mask[e,i]].tolist()==y[e,:,i].nonzero()[:,0].tolist()

def test_mean_prototypes_of_one_image_is_the_image():
    x = torch.randn(4, C)
    assert torch.equal(mean_prototypes(x, torch.eye(4).bool()), x)

def test_training_lowers_the_loss_and_reaches_every_weight():
    torch.manual_seed(0)
    m,(s,q) = PaperModel(PaperConfig(C, W, dim=D, heads=2, lcm_in_training=True, lcm_steps=5)),make(3)
    y,opt,losses = torch.rand(5, 4)<.4,torch.optim.Adam(m.parameters(), 1e-3),[]
    for _ in range(60):
        loss = m.loss(s, q, y); opt.zero_grad(); loss.backward(); opt.step(); losses.append(loss.item())
    assert losses[-1]<.5*losses[0]
    assert not [n for n,p in m.named_parameters() if p.grad is None or not p.grad.any()]

@pytest.mark.parametrize('kw,says', [(dict(prototype='mean'), 'one of cross, wagp, words'), (dict(keep='signed'), 'needs a signed score'),
                                     (dict(parts=('attention',)), 'known parts'), (dict(lcm='label'), "belongs to lcm 'iterated'")])
def test_bad_configurations(kw, says):
    with pytest.raises(FsicError, match=says): PaperConfig(C, W, **kw)


def store(seed=0):
    "Twelve images whose local features have a mean of their own, and an experiment that may train on ten of them."
    f = torch.randn(12, L, 24, generator=torch.Generator().manual_seed(seed))*torch.linspace(2, .2, 24)+3
    return SimpleNamespace(features=f, training=torch.arange(10)), f

def episode(f):
    "Four labels with one example each: with more, WAGP weighs them by their agreement with a word that is random yet."
    return Support(Features(f[:4]), torch.eye(4).bool(), torch.randn(4, W, generator=torch.Generator().manual_seed(1)))

@pytest.mark.parametrize('prototype', ['wagp', 'cross'])
@torch.no_grad()
def test_the_identity_start_is_the_mean_of_what_the_positives_show(prototype):
    exp,f = store()
    near = {}
    for start in ('identity', 'random'):
        cfg = PaperConfig(24, W, dim=D, heads=2, prototype=prototype, lcm='none', start=start, dropout=0.)
        torch.manual_seed(0)
        m = (cfg.initial_model(exp) or cfg.build()).eval()
        P = m.prototypes(s := episode(f))[0]
        want = mean_prototypes(m.interact.norm(m.interact.place(s.x.locals)).mean(-2), s.y)
        near[start] = torch.nn.functional.cosine_similarity(P, want, dim=-1)
    assert near['identity'].min()>.9 and near['random'].abs().max()<.8 and near['random'].mean()<.5

@torch.no_grad()
def test_the_identity_start_centres_and_keeps_what_there_is():
    exp,f = store()
    m = PaperConfig(24, W, dim=D, heads=2, start='identity').initial_model(exp)
    assert torch.allclose(m.embed.visual(f[:10]).mean((0, 1)), torch.zeros(D), atol=1e-4)              # of the training images alone
    assert not torch.allclose(m.embed.visual(f).mean((0, 1)), torch.zeros(D), atol=1e-3)
    assert torch.equal(m.embed.visual.weight, m.interact.place[0].weight) and torch.equal(m.embed.visual.bias, m.interact.place[0].bias)
    kept = m.embed.visual(f[:10]).flatten(0, 1).var(0).sum()/f[:10].flatten(0, 1).var(0).sum()
    assert kept>.9
    a = m.interact.word_attention.attend
    assert torch.equal(a.value.weight, torch.eye(D)) and torch.equal(a.out.weight, torch.eye(D)) and not a.value.bias.any() and not a.out.bias.any()

def test_an_identity_start_depends_on_its_seed_and_takes_nothing_over():
    exp,_ = store()
    for prototype,name in (('wagp', 'embed.word.weight'), ('cross', 'interact.parts.gate.up.weight'), ('words', 'embed.word.weight')):
        cfg = PaperConfig(24, W, dim=D, heads=2, prototype=prototype, start='identity')
        one,again,other = (cfg.initial_model(exp, seed).state_dict() for seed in (0, 0, 1))
        assert all(torch.equal(one[k], again[k]) for k in one) and not torch.equal(one[name], other[name])
        assert cfg.begins_with is None and cfg.to_dict()['start']=='identity'
    assert PaperConfig(24, W).begins_with=='wagp' and PaperConfig(24, W).initial_model(exp) is None
    with pytest.raises(FsicError, match="start is 'zero'; it must be one of random, identity"): PaperConfig(24, W, start='zero')
    with pytest.raises(FsicError, match='needs dim of at most 24'): PaperConfig(24, W, start='identity')

@torch.no_grad()
def test_the_mean_in_its_space_ignores_words_and_attention():
    (s,q),m = make(3),model(prototype='wagp')
    got = mean_in_space(m)(s)(q)
    P = torch.stack([m.embed.visual(s.x.means[own]).mean(0) if own.any() else torch.zeros(D) for own in s.y.T])
    assert torch.allclose(got, score(m.embed.visual(q.means), P), atol=1e-4)
    other = Support(s.x, s.y, s.g.flip(0))
    assert torch.equal(mean_in_space(m)(other)(q), got) and not torch.allclose(m(other)(q), m(s)(q), atol=1e-2)
