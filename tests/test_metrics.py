"""Metrics against scikit-learn on what random data rarely has: many ties, empty classes, weights."""
import itertools, math, warnings
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from sklearn.metrics import average_precision_score, precision_recall_fscore_support
from fsic_nb.core import FsicError
from fsic_nb.metrics import (average_precision, bootstrap_images, chance_level, episode_metrics,
                             image_replicates, interval, paired_interval)

fast = settings(max_examples=40, deadline=None, derandomize=True)
seeds, levels = st.integers(0, 2**32-1), st.sampled_from([1, 2, 3, 8, 50, 10**6])


def draw(seed, shape, levels, share=.2, dtype=np.float64):
    "Scores with at most `levels` different values, and truth with about `share` positives."
    g = np.random.default_rng(seed)
    return (g.integers(0, levels, shape)/8-levels/20).astype(dtype), g.random(shape)<share


def sk_ap(y, s, **kw):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')                 # scikit-learn warns about classes without positives
        return average_precision_score(y, s, **kw)


# --- average precision ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('s, y, ap', [
    ([4, 3, 2, 1], [1, 0, 1, 0], (1+2/3)/2),
    ([9, 5, 5, 5, 1], [1, 0, 1, 1, 0], 1/3+2/3*3/4),    # precision at the end of the tie counts for both
    ([0]*100, [1]+[0]*99, .01),                         # no ranking at all, wherever the positive stands
    ([0]*100, [0]*99+[1], .01),
    ([1, 2], [1, 0], .5),
    ([7], [1], 1.),
    ([-0., 0.], [1, 0], .5),                            # minus zero is zero
])
def test_by_hand(s, y, ap):
    assert average_precision(np.array(s, float), y).item()==pytest.approx(ap, abs=1e-15)
    assert average_precision(np.array(s, np.float32), y).item()==pytest.approx(ap, abs=1e-15)


@fast
@given(seeds, levels, st.integers(1, 70), st.sampled_from([.02, .2, .9]), st.sampled_from([np.float32, np.float64]))
def test_equals_sklearn_with_ties(seed, levels, Q, share, dtype):
    s, y = draw(seed, (9, Q), levels, share, dtype)
    ap = average_precision(s, y, empty=0.).numpy()
    np.testing.assert_allclose(ap, [sk_ap(*r) for r in zip(y, s)], atol=1e-12)
    assert (np.isnan(average_precision(s, y).numpy())==~y.any(1)).all()     # our policy: no positives, no value


@fast
@given(seeds, levels, st.integers(2, 60))
def test_order_of_rows_and_scale_of_scores_do_not_matter(seed, levels, Q):
    s, y = draw(seed, (6, Q), levels)
    ap = average_precision(s, y)
    p = np.random.default_rng(seed).permutation(Q)
    torch.testing.assert_close(average_precision(s[:, p], y[:, p]), ap, equal_nan=True, rtol=0, atol=1e-12)
    for f in (lambda x: 3*x-1, lambda x: x**3, np.arctan):                  # increasing and, on these scores, strictly so
        torch.testing.assert_close(average_precision(f(s/levels), y), ap, equal_nan=True, rtol=0, atol=1e-12)


@fast
@given(seeds, levels, st.integers(1, 40))
def test_integer_weights_are_repetitions(seed, levels, Q):
    s, y = draw(seed, (6, Q), levels)
    w = np.random.default_rng(seed).integers(0, 4, (6, Q))
    rows = [(np.repeat(a, c), np.repeat(b, c)) for a, b, c in zip(s, y, w)]
    want = [average_precision(*r).item() if len(r[0]) else math.nan for r in rows]
    np.testing.assert_allclose(average_precision(s, y, w).numpy(), want, atol=1e-12)


@fast
@given(seeds, levels, st.integers(2, 40))
def test_real_weights_are_sklearns_sample_weights(seed, levels, Q):
    s, y = draw(seed, (6, Q), levels, .4)
    w = np.random.default_rng(seed).random((6, Q))
    want = [sk_ap(b, a, sample_weight=c) for a, b, c in zip(s, y, w)]
    np.testing.assert_allclose(average_precision(s, y, w, empty=0.).numpy(), want, atol=1e-12)


def test_any_leading_shape():
    s, y = draw(0, (2, 3, 5, 30), 9)
    ap = average_precision(s, y)
    assert ap.shape==(2, 3, 5) and ap.dtype==torch.float64
    assert ap[1, 2, 4]==average_precision(s[1, 2, 4], y[1, 2, 4])


def test_a_large_ranking_keeps_its_precision():
    s, y = draw(0, (1, 200_000), 5000, .01, np.float32)
    assert average_precision(s, y).item()==pytest.approx(average_precision_score(y[0], s[0]), abs=1e-11)


def test_scores_with_gradient_and_integers():
    y = torch.tensor([1, 0, 1])
    assert average_precision(torch.tensor([3., 2, 1], requires_grad=True), y).item()==average_precision([3, 2, 1], y).item()==pytest.approx(5/6)


@pytest.mark.parametrize('change, message', [
    (dict(scores=torch.zeros(2, 4, dtype=torch.bfloat16)), 'rank fp32 logits'),
    (dict(scores=torch.zeros(2, 4, dtype=torch.float16)), 'rank fp32 logits'),
    (dict(scores=torch.tensor([[0, 0, 0, 0], [0, 0, math.nan, math.inf]])), r'2 of 8 are not finite, the first at \[1, 2\]'),
    (dict(y=torch.zeros(2, 3).bool()), 'differ in shape'),
    (dict(y=-torch.ones(2, 4)), 'must be 0 or 1'),
    (dict(weights=-torch.ones(4)), 'not negative'),
    (dict(weights=torch.full((4,), math.nan)), 'must be finite'),
    (dict(weights=torch.ones(3)), 'do not broadcast'),
    (dict(scores=torch.zeros(2, 0), y=torch.zeros(2, 0).bool()), 'nothing to rank'),
])
def test_what_cannot_be_ranked_is_refused(change, message):
    with pytest.raises(FsicError, match=message):
        average_precision(**dict(scores=torch.zeros(2, 4), y=torch.zeros(2, 4).bool(), weights=None) | change)


# --- metrics of an episode -----------------------------------------------------------------------------------------------

@fast
@given(seeds, levels, st.integers(1, 30), st.integers(2, 8), st.sampled_from([.05, .3]))
def test_episode_metrics_equal_sklearn(seed, levels, Q, N, share):
    s, y = draw(seed, (4, Q, N), levels, share)
    m, zero = episode_metrics(s, y), episode_metrics(s, y, empty=0.)
    for e in range(4):
        some = y[e].any(0)
        want = np.mean([sk_ap(y[e, :, i], s[e, :, i]) for i in np.flatnonzero(some)]) if some.any() else math.nan
        np.testing.assert_allclose(m['map'][e], want, atol=1e-12)
        np.testing.assert_allclose(zero['map'][e], np.mean([sk_ap(y[e, :, i], s[e, :, i]) for i in range(N)]), atol=1e-12)
        np.testing.assert_allclose(zero['micro_ap'][e], sk_ap(y[e].ravel(), s[e].ravel()), atol=1e-12)
        for kind in ('macro', 'micro'):
            want = precision_recall_fscore_support(y[e], s[e]>0, average=kind, zero_division=0)[:3]
            np.testing.assert_allclose([m[f'{kind}_{k}'][e] for k in ('p', 'r', 'f1')], want, atol=1e-12)
        p, r = m['macro_p'][e], m['macro_r'][e]
        np.testing.assert_allclose(m['macro_f1_pr'][e], 2*p*r/(p+r) if p+r else 0., atol=1e-12)


def sk_metrics(s, y, keep):
    "All metrics of an episode by scikit-learn, of the pairs that count: label by label, and all pairs as one list."
    N = y.shape[1]
    ap = [sk_ap(y[k, i], s[k, i]) if y[k, i].any() else math.nan for i, k in enumerate(keep.T)]
    rows = [precision_recall_fscore_support(y[k, i], s[k, i]>0, average='binary', zero_division=0)[:3] if k.any() else (0., 0., 0.) for i, k in enumerate(keep.T)]
    p, r, f1 = np.mean(rows, 0)
    micro = precision_recall_fscore_support(y[keep], s[keep]>0, average='binary', zero_division=0)[:3]
    return dict(map=np.nanmean(ap) if not np.isnan(ap).all() else math.nan, micro_ap=sk_ap(y[keep], s[keep]) if y[keep].any() else math.nan,
                macro_p=p, macro_r=r, macro_f1=f1, macro_f1_pr=2*p*r/(p+r) if p+r else 0., micro_p=micro[0], micro_r=micro[1], micro_f1=micro[2], ap=ap,
                positives=(y&keep).sum(0), chance=np.mean([chance_level((y&keep)[:, i].sum(), keep[:, i].sum()).item() for i in range(N) if (y&keep)[:, i].any()] or [math.nan]))


@fast
@given(seeds, levels, st.integers(2, 25), st.integers(1, 6), st.sampled_from([.05, .3, .9]), st.sampled_from([0., .3, .8]))
def test_masked_pairs_are_as_if_they_were_not_there(seed, levels, Q, N, share, hidden):
    "Every metric, with ties, labels of nobody and of everybody, and labels of which nothing is known."
    s, y = draw(seed, (Q, N), levels, share)
    keep = np.random.default_rng(seed+1).random((Q, N))>=hidden
    keep[0, 0] = True                                                       # something must be there to be ranked
    got, want = episode_metrics(s, y, weights=keep), sk_metrics(s, y, keep)
    assert got.keys()==want.keys()
    for k in want: np.testing.assert_allclose(got[k], want[k], atol=1e-12, err_msg=k)


@fast
@given(seeds, st.sampled_from([torch.float16, torch.bfloat16]), st.integers(2, 60), st.floats(1e-2, 1e2))
def test_half_numbers_are_refused_and_their_ties_are_ties(seed, dtype, Q, scale):
    "What 16 bits rounded to one value enters together, as in scikit-learn; the order of the images does not help."
    g = np.random.default_rng(seed)
    half = torch.from_numpy(1+1e-2*scale*g.normal(size=(3, Q))).to(dtype)
    y = g.random((3, Q))<.3
    with pytest.raises(FsicError, match='rank fp32 logits'): average_precision(half, y)
    with pytest.raises(FsicError, match='rank fp32 logits'): episode_metrics(half.T, y.T)
    s = half.float().numpy()
    want = [sk_ap(*r) for r in zip(y, s)]
    np.testing.assert_allclose(average_precision(s, y, empty=0.).numpy(), want, atol=1e-12)
    np.testing.assert_allclose(average_precision(half.double(), y, empty=0.).numpy(), want, atol=1e-12)


def test_micro_ap_is_not_map():
    "One label is ranked well and the other, too, but not in one list: the scores of the second are higher throughout."
    s = np.array([[[1., 10], [2, 11], [3, 12], [4, 13]]])
    y = np.array([[[0, 0], [0, 0], [0, 1], [1, 1]]], bool)
    m = episode_metrics(s, y)
    assert m['map'][0]==1 and m['micro_ap'][0]==pytest.approx((1+1+3/5)/3)
    assert m['micro_ap'][0]==pytest.approx(sk_ap(y.ravel(), s.ravel())) and m['macro_f1'][0]==pytest.approx((2/5+2/3)/2)


def test_the_two_macro_f1_differ():
    y = np.zeros((1, 20, 2), bool); y[0, :10] = True
    s = np.full((1, 20, 2), -1.); s[0, 0, 0] = 1.; s[0, :, 1] = 1.   # label 0: sure and rare; label 1: always
    m = episode_metrics(s, y)
    assert m['macro_f1'][0]==pytest.approx((2*.1/1.1+2*.5/1.5)/2)
    assert m['macro_f1_pr'][0]==pytest.approx(2*.75*.55/1.3)


def test_unknown_truth_changes_nothing():
    s, y = draw(1, (5, 24, 6), 50)
    known = np.random.default_rng(1).random(s.shape)<.7
    a, b = episode_metrics(s, y, weights=known), episode_metrics(np.where(known, s, -s), np.where(known, y, ~y), weights=known)
    for k in a: np.testing.assert_allclose(a[k], b[k], atol=1e-12)
    c = episode_metrics(s, y, weights=np.ones_like(s))
    for k, v in episode_metrics(s, y).items(): np.testing.assert_allclose(c[k], v, atol=1e-12)


@pytest.mark.parametrize('Q', range(1, 8))
def test_the_chance_level_is_the_mean_over_all_orders(Q):
    ranks = np.array([*itertools.permutations(range(Q))])
    for P in range(1, Q+1):
        ap = average_precision(ranks, np.broadcast_to(np.arange(Q)<P, ranks.shape)).numpy()
        assert chance_level(P, Q).item()==pytest.approx(ap.mean(), abs=1e-12)


@fast
@given(st.integers(2, 400), st.data())
def test_the_chance_level_is_its_sum(Q, data):
    P = data.draw(st.integers(1, Q))
    level = chance_level(P, Q).item()
    assert level==pytest.approx(sum((P-1)/(Q-1)*(k-1)/k+1/k for k in range(1, Q+1))/Q, abs=1e-12)
    assert P/Q-1e-12<=level<=1+1e-12 and (level==pytest.approx(1))==(P==Q)


def test_the_chance_level_of_an_episode():
    "That of each label, averaged over labels; unknown images are not ranked."
    _, y = draw(4, (3, 24, 6), 10)
    y[0, :, 2] = False
    m = episode_metrics(np.zeros(y.shape), y)
    want = chance_level(y.sum(1), 24).numpy()
    assert np.isnan(want[0, 2]) and np.array_equal(m['positives'], y.sum(1))
    np.testing.assert_allclose(m['chance'], np.nanmean(want, 1))
    np.testing.assert_allclose(episode_metrics(np.zeros(y.shape), y, empty=0.)['chance'], np.nan_to_num(want).mean(1))
    known = np.random.default_rng(1).random(y.shape)<.7
    got = episode_metrics(np.zeros(y.shape), y, weights=known)
    np.testing.assert_allclose(got['chance'], np.nanmean(chance_level((y&known).sum(1), known.sum(1)).numpy(), 1))
    drawn = np.random.default_rng(2).random((4000, 24, 6))
    mean = episode_metrics(drawn, np.broadcast_to(y[1], drawn.shape))['map'].mean()
    assert mean==pytest.approx(m['chance'][1], abs=.005)


def test_labels_and_batches():
    s, y = draw(2, (5, 24, 6), 10)
    m, one, p = episode_metrics(s, y), episode_metrics(s[3], y[3]), np.random.default_rng(0).permutation(6)
    for k, v in episode_metrics(s[..., p], y[..., p]).items():
        of_labels = k in ('ap', 'positives')
        assert v.shape==((5, 6) if of_labels else (5,)) and v.dtype==np.float64
        np.testing.assert_allclose(v, m[k][:, p] if of_labels else m[k], atol=1e-12)
        np.testing.assert_allclose(m[k][3], one[k], atol=1e-12)
    with pytest.raises(FsicError, match='expected'): episode_metrics(s[0, 0], y[0, 0])


# --- intervals -------------------------------------------------------------------------------------------------------------

def test_intervals():
    v = np.random.default_rng(0).normal(50, 6, 200)
    mean, half = interval(v)
    assert mean==pytest.approx(v.mean()) and half==pytest.approx(1.96*v.std(ddof=1)/200**.5, rel=1e-4)
    assert paired_interval(v+1, v)==(pytest.approx(1), pytest.approx(0, abs=1e-12))
    assert interval(torch.tensor(v))==(mean, half)
    for bad, message in (([1.], 'at least 2'), ([1., math.nan], 'no value')):
        with pytest.raises(FsicError, match=message): interval(bad)
    with pytest.raises(FsicError, match='same episodes'): paired_interval(v, v[:-1])


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seeds, levels)
def test_replicates_are_average_precision_with_shared_weights(seed, levels):
    s, y = draw(seed, (4, 12, 3), levels, .3)
    query = np.random.default_rng(seed).integers(0, 30, (4, 12))
    from fsic_nb.core import rng
    ids, at = np.unique(query, return_inverse=True)
    w = rng(7, 'images').multinomial(len(ids), np.full(len(ids), 1/len(ids)), size=20)
    rep = image_replicates(s, y, query, 20, seed=7)
    assert rep.shape==(20, 4)
    for b in range(20):
        want = episode_metrics(s, y, weights=w[b][at.reshape(query.shape)][..., None])['map']
        np.testing.assert_allclose(rep[b], want, atol=1e-6)


def test_bootstrap_over_images_sees_what_episodes_share():
    "One set of 24 query images in all episodes: more episodes cannot make the number surer."
    g = np.random.default_rng(0)
    y1 = g.random((24, 4))<.3
    base = g.normal(size=(24, 4))+y1
    s = base+.1*g.normal(size=(300, 24, 4)); y = np.broadcast_to(y1, s.shape).copy()
    shared, own = np.tile(np.arange(24), (300, 1)), np.arange(300*24).reshape(300, 24)
    mean, half = bootstrap_images(s, y, shared)
    assert mean==pytest.approx(episode_metrics(s, y)['map'].mean())
    assert (mean, half)==bootstrap_images(s, y, shared)
    assert half>5*bootstrap_images(s, y, own)[1]>0
    assert bootstrap_images(s, y, shared, other=s)==(0., 0.)
    assert bootstrap_images(s+.02*g.normal(size=s.shape), y, shared, other=s)[1]<half/3
    with pytest.raises(FsicError, match=r'expected \(E, Q, N\) and \(E, Q\)'): bootstrap_images(s, y, shared[:, 1:])
