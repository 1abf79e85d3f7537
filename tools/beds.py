"""Measure what a balanced mean over episodes hides; each part writes one small JSON file.

    python tools/beds.py coco        COCO photos: by label, size of the object, number of labels
    python tools/beds.py folds       VOC photos with several labels: all 20 labels in three folds
    python tools/beds.py natural     the whole collection as queries, at natural prevalence
    python tools/beds.py pointing    where a prototype looks, against boxes
    python tools/beds.py confidence  calibration; F1 at probability 1/2 and at the best threshold
    python tools/beds.py similarity  results by the nearest class of the backbone

Several parts may be named at once; they share their scores. All need photos and boxes that are not
part of the repository: `--root` (VOC), `--coco` and `--boxes` say where they lie. With `--part val`
everything runs on labels that are no test labels, to develop with; the files that the notebook
40b_beds shows were written by one run on the test labels.
"""
import argparse, os
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path

os.environ.setdefault('FSIC_PROGRESS', '0')
import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from fsic_nb.cache import Cache
from fsic_nb.core import keep_freed_memory, rng, say
from fsic_nb.files import read_json, write_json
from fsic_nb.data import ImageSet, LabelSplit
from fsic_nb.episodes import collate
from fsic_nb.experiment import Experiment, choose_backbone, prepare, widest_episodes
from fsic_nb.metrics import average_precision, interval
from fsic_nb.named import blur, name_points
from fsic_nb.names import class_cosines, class_prior, class_texts
from fsic_nb.probes import PRIOR, ridge, space_vector
from fsic_nb.protocols import Options
from fsic_nb.recipes import build_methods, fit
from fsic_nb.refine import cosines, keep_helpful
from fsic_nb.support import StoredFeatures, can_score, load_episodes
from fsic_nb.words import load_words

results_folder = Path(__file__).resolve().parents[1]/'data'/'results'

SHOTS = (0, 1, 5)
METHODS = ('chance', 'name', 'simpleshot', 'logistic', 'ridge-space', 'ridge-name',
           'refined-whole', 'refined', 'name-places', 'named-whole', 'named', 'ceiling')
BESIDE = ('ridge-space', 'ridge-name', 'refined-whole', 'name-places', 'named-whole')
SIZES = ('under a tenth', 'a tenth to a third', 'above a third')
EDGES = (.1, 1/3)                       # of a box's share of the image
NUMBERS = ('1 label', '2 labels', '3 or more')
LOGITS = ('logistic', 'refined-whole', 'refined')  # whose sigmoid is meant as probability
LISTED = ('name', 'simpleshot', 'ridge-space', 'ridge-name', 'refined-whole', 'refined',
          'name-places', 'named-whole', 'named', 'ceiling')
NEAR = .6                               # cosine from which a class of the backbone counts as near
AGAINST = [('refined', 'refined-whole'), ('refined', 'centre'), ('name', 'centre')]  # looks
SHARES = [('shares', ''), ('shares', 'blurred')]    # where the score of `named` comes from
CHUNK = 500                             # query images scored at once
# How often the test labels were looked at. Between the first two, labels that no table tests asked
# for another temperature of the name (22b_probes); the third has another network and the method that
# reads names at places.
LOOKS = 3


# --- pure functions ------------------------------------------------------------------------------

def size_bin(share):
    "Return the bin of a share of the image: 0, 1, 2; -1 for nan, where there is no box."
    share = np.asarray(share, dtype=float)
    return np.where(np.isnan(share), -1, np.digitize(share, EDGES))


def largest_boxes(boxes, images):
    "Return the share of the image that each label's largest box covers, (images, labels)."
    column = {n: i for i, n in enumerate(images.names)}
    out = np.full(images.labels.shape, np.nan)
    for j, path in enumerate(images.paths):
        for name, _, _, w, h in boxes.get(path.name, []):
            out[j, column[name]] = np.fmax(out[j, column[name]], w*h)
    return out


def cell_centres(grid):
    "Return x and y of the centres of all places, row by row, as shares of the image."
    y, x = np.meshgrid(*((np.arange(n)+.5)/n for n in grid), indexing='ij')
    return x.ravel(), y.ravel()


def places_in(rows, grid):
    "Tell which places have their centre in any of some boxes (x, y, w, h)."
    px, py = cell_centres(grid)
    inside = np.zeros(len(px), dtype=bool)
    for x, y, w, h in rows: inside |= (px>=x)&(px<=x+w)&(py>=y)&(py<=y+h)
    return inside


def partial_ap(scores, y, kept):
    "Compute the AP of each label over the pairs that are kept; nan unless both kinds remain."
    ap = average_precision(scores.mT.contiguous(), y.mT.contiguous(), kept.mT.double())
    both = (kept&y).any(-2)&(kept&~y).any(-2)
    return torch.where(both, ap, torch.nan).numpy()


def bin_counts(p, y, bins=15):
    "Sum up probabilities by equal-width bins: count, sum of p and sum of y, (*b, bins, 3)."
    at = (p*bins).long().clamp_max(bins-1)
    one = F.one_hot(at, bins).double()
    values = torch.stack([torch.ones_like(p), p, y.to(p.dtype)], -1).double()
    return one.mT@values


def calibration_error(counts):
    "Compute the expected calibration error from counts (*b, bins, 3)."
    n, p, y = np.moveaxis(np.asarray(counts), -1, 0)
    return np.abs(p-y).sum(-1)/n.sum(-1)


def f1(tp, fp, fn):
    "Compute F1 from counts."
    return 2*tp/np.maximum(2*tp+fp+fn, 1)


def best_f1(scores, y):
    "Compute the highest F1 that any threshold reaches; equal scores are given together."
    order = np.argsort(-scores, kind='stable')
    s = scores[order]
    tp = np.cumsum(y[order])
    given = np.arange(1, len(s)+1)
    end = np.append(s[1:]<s[:-1], True)
    return f1(tp, given-tp, y.sum()-tp)[end].max()


def other_photos(n, support):
    "Return the numbers of all images that are not in the support."
    return np.setdiff1d(np.arange(n), support)


def percent(values):
    "Mean in percent and 95 % half-width over the values there are, and how many there are."
    v = 100*np.asarray(values, dtype=float)
    v = v[np.isfinite(v)]
    if len(v)<2: return dict(mean=round(float(v[0]), 2) if len(v) else None, ci95=None, n=len(v))
    mean, ci = interval(v)
    return dict(mean=round(mean, 2), ci95=round(ci, 2), n=len(v))


def mean_over(ap):
    "Mean over labels of each episode, (n, N) -> (n,); nan where no label has a value."
    some = np.isfinite(ap)
    return np.where(some.any(1), np.nansum(ap, 1)/np.maximum(some.sum(1), 1), np.nan)


# --- beds and their scores -----------------------------------------------------------------------

@dataclass
class Scores:
    "Hold the scores of all methods on some episodes of the same labels."
    scores: dict         # method -> (n, Q, N)
    y: torch.Tensor      # (n, Q, N)
    query: np.ndarray    # image numbers (n, Q)
    labels: np.ndarray   # label numbers (N,)

    def ap(self, kept=None):
        "Compute method -> AP (n, N), perhaps over some pairs alone."
        kept = torch.ones_like(self.y) if kept is None else kept
        return {m: partial_ap(s, self.y, kept) for m, s in self.scores.items()}


@dataclass
class Bed:
    "Hold an experiment, its methods, and how its episodes are drawn."
    exp: Experiment
    methods: dict        # name -> method
    images: ImageSet     # what episodes are drawn from: labels of images that are left out are gone
    names: list          # labels to test; those with too few images are left out
    boxes: dict          # file name -> rows (label, x, y, w, h)
    draw: object         # (Bed, shots, n) -> `Episodes`
    seen: dict = field(default_factory=dict)

    @cached_property
    def cache(self):
        "What is computed of an image alone is kept."
        return Cache(self.exp, memory=3*2**30)

    @cached_property
    def share(self):
        "The share of the image that each label's largest box covers."
        return largest_boxes(self.boxes, self.exp.images)

    @cached_property
    def cover(self):
        "Which places lie in a box of a label: (images, labels, L)."
        images = self.exp.images
        out = np.zeros((*images.labels.shape, np.prod(self.exp.features.grid)), dtype=bool)
        for j, i in np.argwhere(~np.isnan(self.share)):
            rows = [r[1:] for r in self.boxes[images.paths[j].name] if r[0]==images.names[i]]
            out[j, i] = places_in(rows, self.exp.features.grid)
        return torch.as_tensor(out)

    def able(self, shots):
        "The methods that can score with so many examples."
        return {m: f for m, f in self.methods.items() if can_score(f, shots)}

    def drawn(self, shots, n):
        "Draw n episodes."
        eps = self.draw(self, shots, n)
        return [eps[e] for e in range(n)]

    @torch.no_grad()
    def score(self, shots, n):
        "Score all methods on n episodes, once."
        if (shots, n) in self.seen: return self.seen[shots, n]
        drawn = self.drawn(shots, n)
        out = {m: [] for m in self.able(shots)}
        batch = max(1, 1000//(len(drawn[0].support)+len(drawn[0].query)))
        for i in range(0, n, batch):
            support, query, _ = load_episodes(self.exp, drawn[i:i+batch], self.cache)
            for m, f in self.able(shots).items(): out[m].append(f(support)(query))
        every = collate(drawn)
        self.seen[shots, n] = Scores({m: torch.cat(s) for m, s in out.items()},
                                     torch.as_tensor(every.y_query), every.query, every.labels[0])
        say(f'          {self.exp.name}, {shots}-shot: {n} episodes scored')
        return self.seen[shots, n]

    @torch.no_grad()
    def score_others(self, episode):
        "Score every image outside the support of an episode: their numbers, method -> (Q, N)."
        support, _, _ = load_episodes(self.exp, [episode], self.cache)
        ids = other_photos(len(self.exp.images), episode.support)
        scorers = {m: f(support) for m, f in self.able(episode.shots).items()}
        out = {m: [] for m in scorers}
        for i in range(0, len(ids), CHUNK):
            query = StoredFeatures(self.exp.features, ids[None, i:i+CHUNK], cache=self.cache)
            for m, f in scorers.items(): out[m].append(f(query)[0])
        return ids, {m: torch.cat(s) for m, s in out.items()}


def named_methods(names, exp, model):
    "Make methods around a trained refined model; with and without selection share the encoding."
    methods = build_methods(names, exp, {'refined': model})
    methods['refined-whole'].encode_images = model.encode_images
    return methods


def from_part(part):
    "Draw the episodes of a part as an experiment has it."
    return lambda bed, shots, n: bed.exp.episodes(part, shots)


def masked(bed, shots, n):
    "Draw masked episodes of as many of the bed's labels as the images allow."
    split = LabelSplit(bed.images.name, [], [], bed.names)
    return widest_episodes(bed.images, split, shots, n=max(20, n), protocol='masked')


class Beds:
    "Make the beds of VOC and COCO when they are asked for."
    def __init__(self, a):
        self.a = a

    def boxes(self, data):
        "Read the boxes of a data set."
        return read_json(Path(self.a.boxes)/f'{data}.json')

    @cached_property
    def exp(self):
        "The experiment on VOC."
        return prepare('voc', self.a.root, backbone=self.a.network)

    @cached_property
    def model(self):
        "The refined model of VOC's base labels, as its recipe trains it."
        return fit('refined', self.exp)

    @cached_property
    def voc(self):
        "VOC as every table has it: strict filter, the labels of a part."
        methods = named_methods(METHODS, self.exp, self.model)
        return Bed(self.exp, methods, self.exp.images, self.exp.split.labels(self.a.part),
                   self.boxes('voc'), from_part(self.a.part))

    @cached_property
    def coco(self):
        "COCO, masked: the labels that VOC's base labels leave new; to develop with, the others."
        exp = prepare('coco', self.a.coco, backbone=self.a.network)
        names = exp.split.labels('test')
        if self.a.part=='val': names = [n for n in exp.images.names if n not in names]
        methods = named_methods(METHODS, exp, self.model)
        return Bed(exp, methods, exp.images, names, self.boxes('coco'), masked)

    @cached_property
    def folds(self):
        "VOC photos with at least two labels: three folds of labels, by falling number of photos."
        images = self.exp.images
        many = images.labels&(images.labels.sum(1)>=2)[:, None]
        several = ImageSet(images.paths, images.names, many, 'voc, two labels or more')
        names = [images.names[i] for i in np.argsort(-many.sum(0), kind='stable')]
        test = self.exp.split.labels('test')
        if self.a.part=='val': names = [n for n in names if n not in test]
        return [self.fold(several, names[k::3], names, k) for k in range(3)]

    def fold(self, several, names, every, k):
        "One fold: its labels are tested, the others train a model of its own."
        train = [n for n in every if n not in names]
        exp = replace(self.exp, split=LabelSplit(f'voc, fold {k}', train, [], names))
        methods = named_methods(METHODS, exp, fit('refined', exp))
        return Bed(exp, methods, several, names, self.boxes('voc'), masked)


# --- tables --------------------------------------------------------------------------------------

def joined(tables):
    "Join method -> AP (n, N) of several beds along the labels, with the methods all of them have."
    return {m: np.concatenate([t[m] for t in tables], 1) for m in tables[0]}


def compare(ap, **about):
    "One row a method: mean AP with its interval, and paired differences to `BESIDE`."
    each = {m: mean_over(v) for m, v in ap.items()}
    rows = []
    for m, v in each.items():
        row = dict(**about, method=m, **percent(v))
        for other in BESIDE:
            if other not in each or other==m: continue
            d = percent(v-each[other])
            row[f'to {other}'] = [d['mean'], d['ci95']]
        rows.append(row)
    return rows


def by_size(beds, scored, shots):
    "AP with the positives of one size of the object, all negatives."
    rows = []
    for b, size in enumerate(SIZES):
        tables = []
        pairs = 0
        for bed, s in zip(beds, scored):
            at = torch.as_tensor(size_bin(bed.share[:, s.labels][s.query]))
            tables.append(s.ap(~s.y|(at==b)))
            pairs += int((s.y&(at==b)).sum())
        ap = joined(tables)
        labels = int(np.isfinite(ap['chance']).any(0).sum())
        rows += compare(ap, shots=shots, size=size, pairs=pairs, labels=labels)
    return rows


def by_number(beds, scored, shots):
    "AP over the queries with some number of labels."
    rows = []
    for b, number in enumerate(NUMBERS):
        tables = []
        queries = 0
        for bed, s in zip(beds, scored):
            carried = bed.exp.images.labels.sum(1)[s.query].clip(1, 3)
            of_number = torch.as_tensor(carried==b+1)
            tables.append(s.ap(of_number[..., None].expand_as(s.y)))
            queries += int(of_number.sum())
        if not queries: continue
        ap = joined(tables)
        labels = int(np.isfinite(ap['chance']).any(0).sum())
        rows += compare(ap, shots=shots, number=number, queries=queries, labels=labels)
    return rows


def by_label(beds, scored, shots):
    "One row a label: AP of every method, mean over episodes and interval."
    rows = []
    for bed, s in zip(beds, scored):
        ap = s.ap()
        for i, label in enumerate(s.labels):
            each = {m: percent(v[:, i]) for m, v in ap.items()}
            rows.append(dict(shots=shots, label=bed.exp.images.names[label],
                             photos=int(bed.images.labels[:, label].sum()),
                             ap={m: [p['mean'], p['ci95']] for m, p in each.items()}))
    return rows


def without_boxes(beds, scored):
    "Count the positive pairs of queries, and those whose image has no box of the label."
    y = sum(int(s.y.sum()) for s in scored)
    boxed = [torch.as_tensor(~np.isnan(bed.share[:, s.labels][s.query]))
             for bed, s in zip(beds, scored)]
    return y, y-sum(int((s.y&b).sum()) for s, b in zip(scored, boxed))


def about(a, n, protocol, interval_over='episodes', **more):
    "What every file begins with."
    return dict(part=a.part, seed=0, episodes=n, looks=LOOKS if a.part=='test' else 0,
                protocol=protocol, interval=f'95 %, normal, over {interval_over}',
                backbone=f'{a.network.name}@{a.network.size}', **more)


# --- parts ---------------------------------------------------------------------------------------

def all_tables(beds, n):
    "Everything that `coco` and `folds` show."
    out = dict(labels_left_out={}, positives={}, rows=[], labels=[], sizes=[], numbers=[])
    for k in SHOTS:
        scored = [bed.score(k, n) for bed in beds]
        tested = {beds[0].exp.images.names[i] for s in scored for i in s.labels}
        out['labels_left_out'][k] = [x for bed in beds for x in bed.names if x not in tested]
        y, missing = without_boxes(beds, scored)
        out['positives'][k] = dict(pairs=y, without_box=missing)
        out['rows'] += compare(joined([s.ap() for s in scored]), shots=k, labels=len(tested))
        out['labels'] += by_label(beds, scored, k)
        out['sizes'] += by_size(beds, scored, k)
        out['numbers'] += by_number(beds, scored, k)
    return out


def coco(beds, a):
    "COCO photos, masked: labels, sizes and numbers of labels."
    protocol = ('251 COCO photos, masked: an image is used if it carries a label of the episode, '
                'other labels are ignored; K support and 4 query images drawn for each label; '
                'labels with too few images are left out; the refined model was trained on base '
                'labels of VOC')
    return dict(about(a, a.episodes, protocol), **all_tables([beds.coco], a.episodes))


def folds(beds, a):
    "VOC photos with several labels: all labels, each tested in one of three folds."
    protocol = ('VOC photos with at least two labels, masked; all 20 labels, dealt into three '
                'folds by falling number of photos; a fold tests its labels on episodes of its own '
                '(K support and 4 query images a label) and trains the refined model by its recipe '
                'on the other labels (strict filter, all photos, no validation labels); AP of all '
                'labels of episode e of every fold make one mean')
    split = {k: bed.names for k, bed in enumerate(beds.folds)}
    return dict(about(a, a.episodes, protocol), folds=split, **all_tables(beds.folds, a.episodes))


def natural_tables(bed, n, data):
    "AP on all photos outside the support, at natural prevalence."
    rows, labels = [], []
    for k in SHOTS:
        drawn = bed.drawn(k, n if k else 1)                     # without examples nothing varies
        found = {m: [] for m in bed.able(k)}
        for episode in drawn:
            ids, scores = bed.score_others(episode)
            y = torch.as_tensor(bed.exp.images.labels[np.ix_(ids, episode.labels)])
            for m, s in scores.items(): found[m].append(partial_ap(s, y, torch.ones_like(y)))
        ap = {m: np.stack(v) for m, v in found.items()}
        rows += compare(ap, data=data, shots=k, labels=len(episode.labels))
        for i, label in enumerate(episode.labels):
            each = {m: percent(v[:, i]) for m, v in ap.items()}
            prevalence = 100*float(bed.exp.images.labels[:, label].mean())
            labels.append(dict(data=data, shots=k, label=bed.exp.images.names[label],
                               prevalence=round(prevalence, 2),
                               ap={m: [p['mean'], p['ci95']] for m, p in each.items()}))
        say(f'          {data}, {k}-shot: {len(drawn)} supports scored')
    return dict(rows=rows, labels=labels)


def natural(beds, a):
    "K images a label as support, all other photos as queries."
    voc = natural_tables(beds.voc, a.supports, 'voc')
    coco = natural_tables(beds.coco, a.supports, 'coco')
    protocol = ('support: that of episode e, K images drawn for each label; queries: all other '
                'photos of the collection, whatever they carry; VOC 3,631 photos, labels of the '
                'part; COCO 251 photos, masked labels; without examples one pass')
    photos = dict(voc=len(beds.voc.exp.images), coco=len(beds.coco.exp.images))
    return dict(about(a, a.supports, protocol, 'supports', photos=photos),
                rows=voc['rows']+coco['rows'], labels=voc['labels']+coco['labels'])


class Looks:
    "Tell where the vectors of several methods look, all in the space of the refined model."
    def __init__(self, bed, model):
        self.bed = bed
        self.model = model
        self.named = bed.methods['named']
        self.points = name_points(model.encoder, class_prior(bed.exp.name_cosines(), R=None))
        self.describe = space_vector(model.encoder)

    def places(self, f):
        "Encode local features: of length one, and their lengths."
        x = self.model.encoder(f)
        return F.normalize(x, dim=-1), x.norm(dim=-1)

    def vectors(self, support):
        "Method -> vectors (E, N, D), of length one."
        m = self.points[torch.as_tensor(support.labels)]
        v = self.describe(support.x)
        whole = self.bed.methods['refined-whole'].prototypes(support)
        P = {'name': m, 'ridge-space': ridge(v, support.y)[0],
             'ridge-name': ridge(v, support.y, PRIOR*m)[0],
             'refined-whole': whole, 'refined': self.model.prototypes(support)}
        return {k: F.normalize(p, dim=-1) for k, p in P.items()}

    def best(self, support, query):
        "(method, rule) -> the best place of every query for every label, (E, Q, N)."
        x, length = query.map(self.places)
        out = {}
        for m, P in self.vectors(support).items():
            c = cosines(x, P)
            out[m, 'cosine'] = c.argmax(-1)
            out[m, 'product'] = (c*length[..., None, :]).argmax(-1)
        shares = self.named.share_places(support)(query)
        out['shares', ''] = shares.argmax(-1)
        out['shares', 'blurred'] = blur(shares, self.bed.exp.features.grid).argmax(-1)
        return out


def rates(found, pairs, sizes, **about):
    "Rows of all sizes and each: the mean over the pairs of an episode, then over episodes."
    rows = []
    for b, size in [(None, 'all'), *enumerate(SIZES)]:
        some = pairs if b is None else pairs&(sizes==b)
        count = some.flatten(1).sum(1).numpy()
        total = (found.double()*some).flatten(1).sum(1).numpy()
        each = np.where(count>0, total/np.maximum(count, 1), np.nan)
        rows.append(dict(**about, size=size, pairs=int(count.sum()), **percent(each)))
    return rows


@torch.no_grad()
def pointing_tables(bed, model, n, data):
    "The pointing game on queries, and the kept places of the support."
    looks = Looks(bed, model)
    L = bed.cover.shape[-1]
    sizes = torch.as_tensor(size_bin(bed.share))
    points, differences, kept = [], [], []
    for k in SHOTS[1:]:
        drawn = bed.drawn(k, n)
        hits, pairs, at, inside = {}, [], [], []
        for episode in drawn:
            support, query, y = load_episodes(bed.exp, [episode], bed.cache)
            ids = np.ix_(episode.query, episode.labels)
            cover = bed.cover[ids]                                       # (Q, N, L)
            pairs.append(y[0]&(sizes[ids]>=0))
            at.append(sizes[ids])
            for key, place in looks.best(support, query).items():
                hit = cover.gather(-1, place[0, ..., None])[..., 0]
                hits.setdefault(key, []).append(hit)
            hits.setdefault(('centre', ''), []).append(cover[..., L//2])
            hits.setdefault(('chance', ''), []).append(cover.double().mean(-1))
            hits.setdefault(('reachable', ''), []).append(cover.any(-1))
            inside.append(kept_places(bed, model, support, episode))
        hits = {key: torch.stack(hit).double() for key, hit in hits.items()}
        where = torch.stack(pairs), torch.stack(at)
        for (m, rule), hit in hits.items():
            points += rates(hit, *where, data=data, shots=k, method=m, rule=rule)
        against = [*product(AGAINST, ('cosine', 'product')),
                   *(((m, 'centre'), rule) for m, rule in SHARES)]
        for (m, other), rule in against:
            less = hits.get((other, rule), hits.get((other, '')))
            differences += rates(hits[m, rule]-less, *where, data=data, shots=k, rule=rule,
                                 method=m, other=other)
        support_pairs, support_at, *found = map(torch.stack, zip(*inside))
        for what, value in zip(('kept', 'weight', 'chance', 'share'), found):
            kept += rates(value, support_pairs, support_at, data=data, shots=k, what=what)
        say(f'          {data}, {k}-shot: {n} episodes looked at')
    return dict(points=points, differences=differences, kept=kept)


def kept_places(bed, model, support, episode):
    "Of a support: pairs with boxes, sizes, and what the last round keeps, all (S, N)."
    trace = []
    model.prototypes(support, trace)
    a = trace[-1][1][0]                                                  # (S, N, L)
    keep = keep_helpful(a)
    ids = np.ix_(episode.support, episode.labels)
    cover = bed.cover[ids]
    at = torch.as_tensor(size_bin(bed.share[ids]))
    pairs = torch.as_tensor(episode.y)&(at>=0)
    return (pairs, at, (keep&cover).sum(-1)/keep.sum(-1), (a*cover).sum(-1),
            cover.double().mean(-1), keep.double().mean(-1))


def pointing(beds, a):
    "Does the best place lie in a box of the label, and do the kept ones?"
    voc = pointing_tables(beds.voc, beds.model, a.episodes, 'voc')
    coco = pointing_tables(beds.coco, beds.model, a.episodes, 'coco')
    protocol = ('pairs of a query image and a label it carries whose boxes are known (VOC: '
                'animals), on the balanced episodes; a hit: the centre of the best '
                'place lies in a box of the label; cosine: of local features of length one with '
                'the vector; product: with the local feature as long as it is, its share of a '
                'linear score; chance: share of the places that lie in the boxes; reachable: '
                'pairs with any place in a box; kept: share of the places kept in the last round '
                'that lie in the boxes, on support images; weight: the same by their soft '
                'weights; share: of all places that are kept; sizes by the largest box of the '
                'label; differences: paired, added after the first look')
    return dict(about(a, a.episodes, protocol), **{key: voc[key]+coco[key] for key in voc})


def resampled(n, draws=500):
    "Draw episodes again: counts of each episode in each draw, (draws, n)."
    return rng(0, 'episodes').multinomial(n, np.full(n, 1/n), size=draws)


def confidence_rows(s, shots):
    "Calibration and F1 of every method, pooled over all episodes."
    rows, curves = [], []
    for m, scores in s.scores.items():
        n = len(scores)
        again = resampled(n)
        counts = bin_counts(scores.sigmoid().flatten(1), s.y.flatten(1)).numpy()
        error = calibration_error(counts.sum(0))
        spread = calibration_error(np.tensordot(again, counts, 1)).std(ddof=1)
        given = scores>0
        tp, fp, fn = ((given&s.y).sum(1).numpy(), (given&~s.y).sum(1).numpy(),
                      (~given&s.y).sum(1).numpy())
        half = f1(tp.sum(0), fp.sum(0), fn.sum(0)).mean()
        half_spread = f1(again@tp, again@fp, again@fn).mean(1).std(ddof=1)
        flat = scores.flatten(0, 1).numpy()
        y = s.y.flatten(0, 1).numpy()
        best = np.mean([best_f1(flat[:, i], y[:, i]) for i in range(flat.shape[1])])
        rows.append({'shots': shots, 'method': m, 'logit': m in LOGITS,
                     **{k: round(100*float(v), 2) for k, v in dict(
                         ece=error, ece_ci95=1.96*spread, f1=half, f1_ci95=1.96*half_spread,
                         best_f1=best, mean_p=scores.sigmoid().mean(),
                         positives=s.y.double().mean()).items()}})
        if m not in LOGITS: continue
        total = counts.sum(0)
        curves.append(dict(shots=shots, method=m, count=[int(c) for c in total[:, 0]],
                           p=[round(float(b/max(c, 1)), 4) for c, b, _ in total],
                           y=[round(float(b/max(c, 1)), 4) for c, _, b in total]))
    return rows, curves


def confidence(beds, a):
    "Is a probability of 1/2 worth a half?"
    found = [confidence_rows(beds.voc.score(k, a.episodes), k) for k in SHOTS]
    protocol = ('VOC, strict, balanced episodes; probability: sigmoid of the score; expected '
                'calibration error over 15 equal-width bins of all (query, label) pairs of all '
                'episodes; F1 of each label over all episodes, at score 0 (probability 1/2), mean '
                'over labels; best F1: at the best threshold of each label, chosen on the same '
                'scores, an upper bound; logit: whether the score is meant as a logit')
    return dict(about(a, a.episodes, protocol, 'resampled episodes'),
                rows=sum((rows for rows, _ in found), []), curves=sum((c for _, c in found), []))


def nearest_classes(exp, names):
    "Label -> nearest class of the backbone and cosine: by name and gloss, and by one synonym."
    classes = len(exp.head[1])
    words = load_words('minilm')
    short = class_texts(classes, gloss=False)
    cos = class_cosines(class_texts(classes), names, words)
    synonyms = list(dict.fromkeys(w.strip() for t in short for w in t.split(',')))
    alike = class_cosines(synonyms, names, words)
    return {n: dict(nearest=short[c.argmax()].split(',')[0], cosine=round(float(c.max()), 3),
                    synonym=synonyms[w.argmax()], synonym_cosine=round(float(w.max()), 3))
            for n, c, w in zip(names, cos, alike)}


def correlations(rows, **about):
    "Rank correlations over labels of similarity with AP, and with the name's lead over a probe."
    ap = {m: [r['ap'][m][0] for r in rows] for m in rows[0]['ap']}
    if 'ridge-space' in ap:
        ap['name - ridge-space'] = np.subtract(ap['name'], ap['ridge-space'])
    out = []
    for by in ('cosine', 'synonym_cosine'):
        for m, values in ap.items():
            rho, p = spearmanr([r[by] for r in rows], values)
            out.append(dict(**about, by=by, method=m, labels=len(rows), rho=round(float(rho), 3),
                            p=round(float(p), 4)))
    return out


def similarity_rows(data, beds, n):
    "Rows of labels, of means with and without a near class, and of rank correlations."
    labels, means, ranks = [], [], []
    near = nearest_classes(beds[0].exp, beds[0].exp.images.names)
    for k in SHOTS:
        scored = [bed.score(k, n) for bed in beds]
        rows = [dict(data=data, **near[r['label']], **r) for r in by_label(beds, scored, k)]
        for r in rows: r['ap'] = {m: v for m, v in r['ap'].items() if m in LISTED}
        labels += rows
        ranks += correlations(rows, data=data, shots=k)
        close = np.array([r['cosine']>=NEAR for r in rows])
        ap = joined([s.ap() for s in scored])
        for group, some in (('near', close), ('none', ~close)):
            if not some.any(): continue
            means += compare({m: v[:, some] for m, v in ap.items()}, data=data, shots=k,
                             group=group, labels=int(some.sum()))
    return labels, means, ranks


def similarity(beds, a):
    "Per test label: the nearest class of the backbone, and how well every method does."
    parts = [similarity_rows(data, some, a.episodes)
             for data, some in (('voc', [beds.voc]), ('coco', [beds.coco]), ('folds', beds.folds))]
    protocol = ('episodes of `confidence` (voc), `coco` and `folds`; nearest class: cosine of '
                'MiniLM sentence vectors, name against WordNet synonyms and gloss of the 1,000 '
                f'classes; near: cosine of {NEAR} or more, a choice; synonym: the same against '
                'every synonym alone, added after the first look; ranks: Spearman over labels')
    labels, means, ranks = (sum(p, []) for p in zip(*parts))
    return dict(about(a, a.episodes, protocol), near=NEAR, labels=labels, means=means, ranks=ranks)


PARTS = dict(coco=coco, folds=folds, natural=natural, pointing=pointing, confidence=confidence,
             similarity=similarity)


def main():
    "Run parts and write their files."
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('parts', nargs='+', choices=PARTS)
    parser.add_argument('--root', required=True, help='folder of VOC')
    parser.add_argument('--coco', help='folder of COCO')
    parser.add_argument('--boxes', help='folder of coco.json and voc.json')
    parser.add_argument('--episodes', type=int, default=200)
    parser.add_argument('--supports', type=int, default=20, help='of the part natural')
    parser.add_argument('--part', choices=['val', 'test'], default='test')
    parser.add_argument('--backbone', default='', help='network for VOC and COCO (default: lite2)')
    parser.add_argument('--size', type=int, help='pixels of a side (default: 336 for lite2)')
    parser.add_argument('--out', default=results_folder, help='where the files go')
    a = parser.parse_args()
    keep_freed_memory()
    a.network = choose_backbone('voc', Options(backbone=a.backbone, size=a.size))
    beds = Beds(a)
    for part in a.parts:
        path = Path(a.out)/f'bed_{part}.json'
        write_json(path, PARTS[part](beds, a))
        say(f'{path.name} written')


if __name__=='__main__': main()
