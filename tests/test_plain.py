"The paper on one page against the model that is used: the same weights, the same scores; and the table of its steps."
import re
from pathlib import Path

import pytest, torch
from execnb.nbio import read_nb
from fsic_nb.support import Features, Support
from fsic_nb.lcm import keep_literal, keep_share, keep_signed, lcm_scores, leave_one_out, normalise_rho
from fsic_nb.model import PaperConfig, PaperModel
from fsic_nb.plain import (draw_weights, iterate_lcm, keep_features, leave_each_out, plain, score_all, select_features,
                           stretch_rho, training_loss)

C, W, D, L, HEADS = 6, 10, 16, 9, 2
SWITCHES = [dict(prototype='words'), dict(prototype='wagp'), dict(), dict(lcm='none'), dict(lcm='exact', keep='share'),
            dict(lcm='exact', keep='signed'), dict(lcm='label', keep='signed'), dict(lcm='label', keep='share', share=.5),
            dict(parts=()), dict(parts=('conv',)), dict(parts=('conv', 'gate')), dict(lcm_steps=1)]


def episode(seed, S=6, N=4, Q=5):
    """Local features, labels, words and queries; label 3 has no positive, and some local features are empty.

    In double precision, so that a loss change on the wrong side of the author's threshold is no matter of rounding.
    """
    draw = torch.Generator().manual_seed(seed)
    def normal(*shape): return torch.randn(*shape, generator=draw, dtype=torch.float64)
    f, y = normal(S, L, C).relu(), torch.rand(S, N, generator=draw)<.4
    f[torch.rand(S, L, generator=draw)<.3] = 0
    y[:, 3] = False
    return f, y, normal(N, W), normal(Q, L, C), torch.rand(Q, N, generator=draw)<.4


def model(seed=0, **switches):
    "A model whose every weight counts: fresh biases are zero or small, and fresh norms do nothing."
    torch.manual_seed(seed)
    m = PaperModel(PaperConfig(C, W, dim=D, heads=HEADS, dropout=0., **switches)).double().eval()
    with torch.no_grad():
        for p in m.parameters(): p.add_(.1*torch.randn_like(p))
    return m


def fast_scores(m, f, y, g, f_query): return m(Support(Features(f), y, g))(Features(f_query))


@pytest.mark.parametrize('switches', SWITCHES, ids=str)
@torch.no_grad()
def test_plain_gives_the_model_s_scores(switches):
    for seed in range(4):
        m, (f, y, g, f_query, _) = model(seed, **switches), episode(seed)
        slow, fast = plain(m.state_dict(), f, y, g, f_query, m.cfg), fast_scores(m, f, y, g, f_query)
        assert fast.std()>.1 and torch.allclose(slow, fast, atol=1e-4), (slow-fast).abs().max()


@torch.no_grad()
def test_single_precision_is_close():
    for switches in (dict(prototype='wagp'), dict(lcm='exact', keep='signed'), dict(lcm='none')):
        m, (f, y, g, f_query, _) = model(1, **switches).float(), episode(1)
        f, g, f_query = f.float(), g.float(), f_query.float()
        assert torch.allclose(plain(m.state_dict(), f, y, g, f_query, m.cfg), fast_scores(m, f, y, g, f_query), atol=1e-3)


@pytest.mark.parametrize('prototype', ['cross', 'wagp', 'words'])
def test_plain_has_the_model_s_loss_and_gradients(prototype):
    f, y, g, f_query, y_query = episode(2)
    m = model(2, prototype=prototype).train()                  # no dropout; the training step has no LCM
    fast = m.loss(Support(Features(f), y, g), Features(f_query), y_query)
    fast.backward()
    weights = {n: p.detach().clone().requires_grad_() for n, p in m.named_parameters()}
    switches = PaperConfig(C, W, dim=D, heads=HEADS, prototype=prototype, lcm='none')
    slow = training_loss(weights, f, y, g, f_query, y_query, switches)
    slow.backward()
    assert torch.allclose(slow, fast, atol=1e-6)
    for n, p in m.named_parameters(): assert torch.allclose(weights[n].grad, p.grad, atol=1e-5), n


def test_the_rule_selects_and_the_selection_counts():
    "The tests above would be empty if the author's rule kept everything, or if what is kept changed nothing."
    f, y, g, f_query, _ = episode(0)
    m = model()
    weights = {n: p.detach() for n, p in m.named_parameters()}
    t = m.embed.word(g).detach()
    keep = select_features(weights, f, y, t, m.cfg)
    assert torch.equal(keep, m.select(Support(Features(f), y, g), t).expand_as(keep))
    assert .2<keep.float().mean()<.95
    everything = model(lcm='none')
    assert (fast_scores(m, f, y, g, f_query)-fast_scores(everything, f, y, g, f_query)).abs().max()>.01


@torch.no_grad()
def test_loss_changes_are_the_fast_ones():
    for seed in range(4):
        (f, y, g, _, _), m = episode(seed), model(seed)
        W_v, b, t = m.embed.visual.weight, m.embed.visual.bias, m.embed.word(g)
        x = f@W_v.T
        for steps in (1, 2, 30):
            slow, fast = iterate_lcm(f, W_v, b, t, y, steps), lcm_scores(x, b, t, y, steps)
            assert torch.allclose(slow, fast, atol=1e-9, rtol=1e-5)
        delta = leave_each_out(x, b, t, y)
        assert torch.allclose(delta, leave_one_out(x, b, t, y), atol=1e-8)
        for rule, fast in dict(literal=keep_literal, share=keep_share, signed=keep_signed).items():
            assert torch.equal(keep_features(delta, rule), fast(delta))
        rho = torch.rand(5, L, dtype=torch.float64)
        rho[0] = .7
        assert torch.allclose(stretch_rho(rho), torch.from_numpy(normalise_rho(rho.numpy())))


def test_scores_of_pairs():
    x, y = torch.randn(5, D), torch.randn(3, D)
    cos = torch.nn.functional.cosine_similarity(x[:, None], y[None], dim=-1)
    assert torch.allclose(score_all(x, y), 20*(1-(2-2*cos).clamp_min(1e-6).sqrt()), atol=1e-4)


def test_weights_have_the_model_s_names_and_shapes():
    "The gate's and the convolution's inner sizes are the model's own."
    theirs = {n: p.shape for n, p in PaperModel(PaperConfig(C, W, dim=D, heads=HEADS)).state_dict().items()}
    assert theirs == {n: p.shape for n, p in draw_weights(C, W, D).items()}
    assert list(theirs)==list(draw_weights(C, W, D))           # the order says which part acts first


# --- the table of steps -------------------------------------------------------------------------------------------------

nbs = Path(__file__).resolve().parents[1]/'nbs'
texts = {p.name: [c.source for c in read_nb(p).cells] for p in sorted(nbs.glob('*.ipynb'))}
steps = [int(n) for t in texts['09_paper.ipynb'] for n in re.findall(r'^\| (\d+) \| \w', t, re.M)]


def named_steps(text)->set:
    "The steps that a text refers to as '(paper, step 6)', '(paper, steps 1-4 and 7)', '(paper, steps 1 to 7)'."
    found = set()
    for what in re.findall(r'\(paper, steps? ([\d ,andto–-]+)\)', text):
        for a, b in re.findall(r'(\d+)(?:(?:-|–| to )(\d+))?', what): found |= {*range(int(a), int(b or a)+1)}
    return found


def test_the_reading_of_steps():
    assert named_steps('(paper, step 6) and (paper, steps 1-4 and 7), (paper, steps 2 to 3)')=={1, 2, 3, 4, 6, 7}


def test_every_step_that_is_referred_to_is_a_row_of_the_table():
    assert steps==[*range(1, 9)]
    for name, cells in texts.items():
        assert named_steps('\n'.join(cells))<={*steps}, name
        spelt = sum(len(re.findall(r'\(paper, step', c)) for c in cells)
        read = sum(len(re.findall(r'\(paper, steps? [\d ,andto–-]+\)', c)) for c in cells)
        assert spelt==read, f'{name}: a reference to a step that the test cannot read'


def test_every_row_says_where_it_comes_from():
    rows = [l for t in texts['09_paper.ipynb'] for l in t.splitlines() if re.match(r'\| \d+ \| \w', l)]
    assert len(rows)==8
    for row in rows: assert re.search(r'\*\*(abstract|released code|our choice|unknown)\*\*', row.split('|')[-2], re.I), row
