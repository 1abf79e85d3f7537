"The pieces of tools/beds.py that every bed is made of, against cases worked out by hand."
import math
from types import SimpleNamespace as Namespace
import numpy as np, pytest, torch

import beds
from fsic_nb.data import ImageSet


def test_sizes_fall_into_three_bins_and_none():
    shares = [.01, .0999, .1, .2, 1/3, .5, 1, math.nan]
    assert beds.size_bin(shares).tolist()==[0, 0, 1, 1, 2, 2, 2, -1]


@pytest.fixture
def images():
    y = [[1, 0], [1, 1], [0, 1]]
    return ImageSet(['a/1.jpg', 'a/2.jpg', 'a/3.jpg'], ['cat', 'dog'], y, 'three')


def test_the_largest_box_of_a_label_counts(images):
    boxes = {'1.jpg': [['cat', 0, 0, .1, .1], ['cat', .5, .5, .5, .4]],
             '2.jpg': [['dog', .2, .2, .6, .5], ['cat', 0, 0, .3, .2]]}
    share = beds.largest_boxes(boxes, images)
    assert np.allclose(share, [[.2, math.nan], [.06, .3], [math.nan]*2], equal_nan=True)


def test_a_place_is_in_a_box_by_its_centre():
    x, y = beds.cell_centres((7, 7))
    assert (x[24], y[24])==(.5, .5) and x[1]>x[0] and y[1]==y[0]         # rows first
    inside = beds.places_in([(0, 0, 1, .5)], (7, 7)).reshape(7, 7)      # the upper half
    assert inside[:4].all() and not inside[4:].any()
    left = beds.places_in([(0, 0, .2, 1)], (7, 7)).reshape(7, 7)        # column 0 alone
    assert left[:, 0].all() and not left[:, 1:].any()
    assert not beds.places_in([(.15, .15, .05, .05)], (7, 7)).any()     # between centres
    both = beds.places_in([(0, 0, .2, 1), (0, 0, 1, .5)], (7, 7)).reshape(7, 7)
    assert (both==inside.__or__(left)).all()


def test_cover_knows_which_label_a_box_is_of(images):
    exp = Namespace(images=images, features=Namespace(grid=(7, 7)))
    boxes = {'2.jpg': [['dog', 0, 0, 1, .5], ['cat', .9, .9, .1, .1]]}
    cover = beds.Bed(exp, {}, images, [], boxes, None).cover
    assert cover.shape==(3, 2, 49) and cover[1, 1].sum()==28
    assert cover[1, 0].nonzero().tolist()==[[48]] and not cover[[0, 2]].any()


def test_ap_of_one_bin_has_its_positives_and_all_negatives():
    # by rank: a big positive, a negative, a small positive, a negative, a positive without a box
    s = torch.tensor([[[5.], [4.], [3.], [2.], [1.]]])
    y = torch.tensor([[[True], [False], [True], [False], [True]]])
    at = torch.tensor([[[2], [2], [0], [-1], [-1]]])                    # of negatives: no matter
    ap = [beds.partial_ap(s, y, ~y|(at==b))[0, 0] for b in range(3)]
    assert ap[0]==pytest.approx(1/2)       # second of its list of three
    assert np.isnan(ap[1])                                              # no positive of this size
    assert ap[2]==pytest.approx(1)
    everything = beds.partial_ap(s, y, torch.ones_like(y))[0, 0]
    assert everything==pytest.approx((1+2/3+3/5)/3)


def test_ap_needs_a_negative_too():
    s, y = torch.rand(1, 3, 1), torch.tensor([[[True], [True], [False]]])
    assert np.isnan(beds.partial_ap(s, y, y)).all()


def test_sizes_and_numbers_are_looked_up_by_image(images):
    "Query 2 shows a small dog besides a large cat; query 3 shows a dog without a box."
    boxes = {'1.jpg': [['cat', 0, 0, .9, .9]],
             '2.jpg': [['cat', 0, 0, .8, .8], ['dog', 0, 0, .2, .2]]}
    exp = Namespace(images=images, features=Namespace(grid=(7, 7)))
    bed = beds.Bed(exp, {}, images, [], boxes, None)
    query = np.array([[2, 0, 1], [2, 0, 1]])
    y = torch.as_tensor(images.labels[query])
    s = beds.Scores({'chance': torch.tensor([[[0., .9], [1, .8], [2, .7]]]*2)}, y, query,
                    np.array([0, 1]))
    assert beds.without_boxes([bed], [s])==(8, 2)
    rows = {r['size']: r for r in beds.by_size([bed], [s], 1)}
    small, _, large = (rows[x] for x in beds.SIZES)
    assert (small['pairs'], small['labels'], small['mean'])==(2, 1, 50.)
    assert (large['pairs'], large['labels'], large['mean'])==(4, 1, 100.)
    rows = {r['number']: r for r in beds.by_number([bed], [s], 1)}
    assert rows['1 label']['queries']==4 and rows['2 labels']['queries']==2
    assert rows['1 label']['mean']==100 and rows['2 labels']['mean'] is None


def test_calibration_error_of_a_case_by_hand():
    # two bins of two: below 1/2 p = .1, .3 and one positive; above p = .8, .9, both positive
    p, y = torch.tensor([.1, .3, .8, .9]), torch.tensor([True, False, True, True])
    counts = beds.bin_counts(p, y, bins=2)
    assert counts[:, 0].tolist()==[2, 2] and counts[:, 2].tolist()==[1, 2]
    assert beds.calibration_error(counts)==pytest.approx((abs(.2-.5)+abs(.85-1))/2)
    assert beds.bin_counts(torch.ones(3), torch.ones(3).bool())[-1, 0]==3       # 1 is in the last
    assert beds.calibration_error(beds.bin_counts(torch.full((4,), .25), y[[1, 1, 1, 0]]))==0


def test_errors_of_bins_do_not_cancel():
    p, y = torch.tensor([.05, .95]), torch.tensor([True, False])
    assert beds.calibration_error(beds.bin_counts(p, y))==pytest.approx(.95)


def test_best_f1_gives_equal_scores_together():
    s, y = np.array([3., 2, 2, 1]), np.array([True, True, False, False])
    assert beds.best_f1(s, y)==pytest.approx(2*2/(2*2+1))   # the two at 2 go together: not 1
    assert beds.best_f1(np.array([3., 2, 1]), np.array([True, True, False]))==1


def test_natural_queries_hold_no_support_image():
    support = np.array([3, 0, 7])
    rest = beds.other_photos(9, support)
    assert rest.tolist()==[1, 2, 4, 5, 6, 8] and not set(rest)&set(support)
    assert len(beds.other_photos(9, support[:0]))==9                    # without examples: all


def test_means_leave_labels_without_a_value_out():
    ap = np.array([[.5, math.nan], [.2, .4], [math.nan, math.nan]])
    assert np.allclose(beds.mean_over(ap), [.5, .3, math.nan], equal_nan=True)
    assert beds.percent(beds.mean_over(ap))['n']==2 and beds.percent([math.nan])['mean'] is None


def test_rates_are_means_over_pairs_of_an_episode():
    hits = torch.tensor([[[True, False]], [[True, True]]])              # (E, Q, N)
    pairs = torch.tensor([[[True, True]], [[True, False]]])
    sizes = torch.tensor([[[0, 2]], [[2, 2]]])
    rows = {r['size']: r for r in beds.rates(hits, pairs, sizes)}
    assert rows['all']['mean']==75 and rows['all']['pairs']==3
    assert rows['under a tenth']['mean']==100 and rows['above a third']['mean']==50
    assert rows['a tenth to a third']['mean'] is None


def test_correlations_follow_the_ranks():
    rows = [dict(cosine=c, synonym_cosine=-c, ap={"name": [a, 0], "ridge-space": [b, 0]})
            for c, a, b in ((.1, 10, 5), (.2, 30, 40), (.3, 50, 80))]
    rho = {(r["by"], r["method"]): r["rho"] for r in beds.correlations(rows)}
    assert rho["cosine", "name"]==1 and rho["synonym_cosine", "name"]==-1
    assert rho["cosine", "name - ridge-space"]==-1                      # 5, -10, -30


def test_folds_join_along_the_labels():
    tables = [{'m': np.zeros((4, 2))}, {'m': np.ones((4, 3))}]
    ap = beds.joined(tables)
    assert ap['m'].shape==(4, 5) and beds.mean_over(ap['m'])[0]==pytest.approx(.6)


def test_differences_are_paired():
    ap = {'refined': np.array([[.5], [.7]]), 'ridge-space': np.array([[.4], [.6]])}
    row = next(r for r in beds.compare(ap, shots=1) if r['method']=='refined')
    assert row['to ridge-space']==[10., 0.] and row['mean']==60 and row['ci95']>10
