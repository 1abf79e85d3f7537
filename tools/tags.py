"""What comes with the library for photographs, and what it is worth.

    python tools/tags.py weights --root VOC    data/models/photographs.safetensors: the space
    python tools/tags.py prior --root VOC --coco COCO    the prior of confidence, written into the same file
    python tools/tags.py rival --root VOC --coco COCO    which logistic regression is the best rival, on base labels
    python tools/tags.py limits --root VOC --coco COCO --boxes BOXES   what it is bad at, on base labels
    python tools/tags.py compare --root VOC --out FILE   what tagging is worth; --labels test looks at test labels
    python tools/tags.py photos --root VOC     figures/tagged.png: three photos that are right and three that are not

The space is made of the photos of VOC that carry training labels only; which one a photo carries is not used. The prior is
measured with eight base labels of VOC and those labels of COCO that are no test labels of VOC. Only `compare --labels test` and `photos` look at a test label.
"""
import argparse, copy, os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

os.environ.setdefault('FSIC_PROGRESS', '0')
import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import t as student
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from beds import SIZES, largest_boxes, size_bin
from fsic_nb.confidence import KINDS_OF_TAG, Evidence, fit_confidence
from fsic_nb.core import rng, say
from fsic_nb.files import read_json, write_json
from fsic_nb.experiment import Experiment, prepare, read_images
from fsic_nb.names import class_prior
from fsic_nb.partial import solve_weighted, weigh_examples, with_background
from fsic_nb.pictures import open_rgb
from fsic_nb.space import load_space, make_space
from fsic_nb.tagger import Tagger

target = Path(__file__).resolve().parents[1]/'data'/'models'/'photographs.safetensors'
BASE = ['bus', 'cow', 'train', 'car', 'horse', 'motorbike', 'bicycle', 'person']
UNKNOWN = {k: (1.5, -.1, -.1, 0.) for k in KINDS_OF_TAG} # before `prior` has run


def quiet(line): pass


def basis(root):
    "The photos that the space is made of: those of VOC that carry nothing but its eight training labels."
    images, split, _, _ = read_images('voc', root, say=quiet)
    return [images.paths[i] for i in Experiment('voc', images, split, None, None).basis]


def weights(args):
    "Make the space, with two threads: their number decides last bits, and with them how the weakest directions turn."
    torch.set_num_threads(2)
    paths = basis(args.root)
    space = make_space(paths, 'lite2', 336, prior=UNKNOWN)
    space.save(args.to or target)
    say(f'{target.name}: {len(paths)} images, {target.stat().st_size/1e6:.1f} MB')


# --- tasks: a few examples a tag, the rest to be tagged -------------------------------------------------------------------

class Bed:
    "Images read once in a space, and the labels that tasks are made of."
    def __init__(self, space, exp, labels, others=False):
        columns = exp.images.index(labels)
        self.ids = np.flatnonzero(exp.images.labels[:, columns].any(1)|others)
        self.y = torch.as_tensor(exp.images.labels[np.ix_(self.ids, columns)])
        self.labels, self.space, self.cos = labels, space, space.compare(labels)
        with torch.no_grad():
            self.means = exp.features.mean_of(self.ids)
            reads = [space.named.read(exp.features[self.ids[i:i+32]]) for i in range(0, len(self.ids), 32)]
        self.reads = [torch.cat(x) for x in zip(*reads)]
        self.last, self.scores = None, None

    def score(self, ids, q):
        "What the names say of some images, and their vectors; kept until other names are asked for."
        if self.last is None or not torch.equal(q, self.last):
            parts = [self.score_part(slice(i, i+128), q) for i in range(0, len(self.ids), 128)]
            self.last, self.scores = q, [torch.cat(x) for x in zip(*parts)]
        return tuple(x[ids] for x in self.scores)

    @torch.inference_mode()
    def score_part(self, some, q):
        reads = [x[some] for x in self.reads]
        class Read:
            def map(self, f): return reads
        return self.space.named.score_names(Read(), q)

    def task(self, e, n_tags, shots, hidden=True):
        "Examples and held-out images of task e: tags, support, what is listed there, the rest."
        draw = rng(0, 'task', e, n_tags, shots)
        tags = np.sort(draw.permutation(len(self.labels))[:n_tags])
        y, support, listed = self.y[:, tags], [], []
        for t in draw.permutation(n_tags):
            own = [i for i in draw.permutation(np.flatnonzero(y[:, t])) if i not in support][:shots]
            support += own
            listed += [t]*len(own)
        yes = torch.zeros(len(support), n_tags, dtype=torch.bool)
        yes[range(len(support)), listed] = True
        rest = torch.ones(len(y), dtype=torch.bool)
        rest[support] = False
        rest &= y.any(1)
        return tags, torch.tensor(support), yes if hidden else y[support], rest.nonzero()[:, 0]


def coco_labels(exp):
    "Labels of COCO with ten photos or more that are no test label of VOC."
    count = dict(zip(exp.images.names, exp.images.counts().tolist()))
    test = {'cat', 'dog', 'potted plant', 'sheep', 'couch', 'tv'}
    return [n for n in exp.images.names if count[n]>=10 and n not in test]


def solve(bed, tags, support, yes, unlisted, nameless=False):
    "Solve a task: scorer of image numbers, and what calibrates it."
    q = class_prior(bed.cos[tags])
    named = torch.full((len(tags),), not nameless)
    def read(ids):
        s, v = bed.score(ids, q)
        return s*named, v
    s, v = read(support)
    no = torch.zeros_like(yes) if unlisted!='no' else ~yes
    w = weigh_examples(yes, no, unlisted)
    rows = with_background(s, v, yes, w, bed.space.ground, named)
    out = solve_weighted(*rows)
    return lambda ids: out.correction(*read(ids)), Evidence(out.left[:len(s)], yes, yes if unlisted!='no' else torch.ones_like(yes), w, named)


# --- the prior of confidence ----------------------------------------------------------------------------------------------

def fit_prior(scores, y, ratio, extra, w):
    "Maximum likelihood of log a and of c, which is linear in the ratio and the extra tags."
    x = torch.tensor([1., 0., 0., 0.], requires_grad=True)
    lbfgs = torch.optim.LBFGS([x], max_iter=200, line_search_fn='strong_wolfe')
    def loss():
        lbfgs.zero_grad()
        z = x[0].exp()*(scores-x[1]-x[2]*ratio-x[3]*extra)
        out = (w*torch.nn.functional.binary_cross_entropy_with_logits(z, y, reduction='none')).sum()/w.sum()+1e-4*(x**2).sum()
        out.backward()
        return out
    lbfgs.step(loss)
    return [round(v, 2) for v in x.tolist()]


def prior(args):
    "Measure it, and write it into the file."
    space = load_space(target)
    beds = []
    for data, root in (('voc', args.root), ('coco', args.coco)):
        exp = prepare(data, root, say=quiet)
        labels = BASE if data=='voc' else coco_labels(exp)
        beds.append(Bed(space, exp, labels))
        say(f'{data}: {len(beds[-1].ids)} images, labels {", ".join(labels)}')
    found = {k: ([], [], [], [], []) for k in KINDS_OF_TAG}
    for e in range(args.tasks):
        for bed in beds:
            n_tags = int(rng(0, 'tags', e).integers(3, min(12, len(bed.labels))+1))
            for shots in (1, 3, 5, 10) if len(bed.ids)>1000 else (1, 3):
                for how, hidden in (('unlikely', True), ('unlikely', False), ('no', False), ('unknown', True), ('word', True)):
                  for nameless in (False, True):
                    if how=='word' and nameless: continue
                    task = bed.task(e, n_tags, shots, hidden)
                    if how=='word':
                        if shots>1: continue
                        q = class_prior(bed.cos[task[0]])
                        f, kinds, ratio, extra = bed.score(task[3], q)[0], ['word']*n_tags, torch.zeros(n_tags), 0.
                    else:
                        score, evidence = solve(bed, *task[:3], how, nameless)
                        f, kinds = score(task[3]), evidence.kinds()
                        ratio, extra = evidence.log_ratio, evidence.extra
                    y = bed.y[task[3]][:, task[0]].float()
                    for i, k in enumerate(kinds):
                        for to, x in zip(found[k], (f[:, i], y[:, i], ratio[i].expand(len(f)), torch.full((len(f),), extra), torch.full((len(f),), 1/len(f)))): to.append(x)
    table = {k: fit_prior(*map(torch.cat, v)) for k, v in found.items()}
    for k, v in table.items(): say(f'{k:15} log a {v[0]:5.2f}, c {v[1]:5.2f}, with log ratio {v[2]:5.2f}, with extra tags {v[3]:5.2f}  ({len(found[k][0])} tags)')
    replace(space, prior=table).save(target)


# --- what it is worth -----------------------------------------------------------------------------------------------------

SHOTS = (1, 3, 5, 10)
INTERVAL = '95 %, Student, over tasks: other examples, the same photos'
# scikit-learn's logistic regression on the mean features: the best of `rival` for F1; C from .01 to 10 does alike
RIVAL = dict(C=1, class_weight='balanced')
# How often test labels were looked at: once, with what `compare --labels test` wrote.
LOOKS = 1


def best_f1(p, y):
    "F1 at the best threshold, chosen with the answers."
    y = y[np.argsort(-p, kind='stable')]
    return (2*y.cumsum()/(np.arange(1, len(y)+1)+y.sum())).max()


def f1(yes, y): return 2*(yes&y).sum()/max(1, yes.sum()+y.sum())


def reliability(p, y, bins=10):
    "How many probabilities are in each of ten bins, their sum, and how many are right."
    b = np.clip((p*bins).astype(int), 0, bins-1).ravel()
    return np.stack([np.bincount(b, x, bins) for x in (np.ones(p.size), p.ravel(), y.ravel())])


def judge(p, y, yes):
    "Numbers of one task: means over the tags that some photo carries."
    tags = [i for i in range(y.shape[1]) if y[:, i].any()]
    f = np.mean([f1(yes[:, i], y[:, i]) for i in tags])
    best = np.mean([best_f1(p[:, i], y[:, i]) for i in tags])
    n, said, right = reliability(p, y)
    return dict(map=np.mean([average_precision_score(y[:, i], p[:, i]) for i in tags]),
                f1=f, best=best, share=f/best, ece=abs(said-right).sum()/n.sum())


def even(draw, y, each=15):
    "The same number of photos of every tag, as in an episode."
    keep = []
    for i in range(y.shape[1]): keep += [j for j in draw.permutation(np.flatnonzero(y[:, i])) if j not in keep][:each]
    return np.array(keep)


def logistic(bed, support, yes, rest, **kw):
    "What a user would do instead: scikit-learn on the same mean features; what is not listed is a no."
    x = torch.nn.functional.normalize(bed.means, dim=-1).numpy()
    out = np.zeros((len(rest), yes.shape[1]))
    for i in range(yes.shape[1]):
        fitted = LogisticRegression(max_iter=2000, **(kw or RIVAL)).fit(x[support], yes[:, i].numpy())
        out[:, i] = fitted.predict_proba(x[rest])[:, 1]
    return out


def nearest_mean(bed, support, yes, rest):
    "The cosine with the mean of a tag's examples; the nearest one is given."
    x = torch.nn.functional.normalize(bed.means, dim=-1)
    centres = torch.nn.functional.normalize(yes.float().T@x[support], dim=-1)
    cos = (x[rest]@centres.T).numpy()
    return cos, cos>=cos.max(1, keepdims=True)


def ways(bed, task, hidden):
    "All ways to tag one task: name -> probabilities, tags given, tags given with precision .9."
    tags, support, yes, rest = task
    out = {}
    for how in ('unlikely', 'no', 'unknown') if hidden else ('unlikely', 'no'):
        score, evidence = solve(bed, tags, support, yes, how)
        sure = fit_confidence(evidence, bed.space.prior)
        f = score(rest)
        p = sure(f).double().numpy()
        out[f'tagger, {how}'] = p, sure.decide(p)[0], sure.decide(p, precision=.9)[0]
        if how=='unlikely':
            raw = ((f+1)/2).clamp(0, 1).double().numpy()
            out['raw score'] = raw, raw>=.5, raw>=.9
    p = logistic(bed, support, yes, rest)
    out['logistic regression'] = p, p>=.5, p>=.9
    out['nearest mean'] = *nearest_mean(bed, support, yes, rest), None
    q = class_prior(bed.cos[tags])
    nothing = Evidence(torch.zeros(0, len(tags)), yes[:0], yes[:0], torch.zeros(0, len(tags)), torch.ones(len(tags)).bool())
    sure = fit_confidence(nothing, bed.space.prior)
    p = sure(bed.score(rest, q)[0]).double().numpy()
    out['the name alone'] = p, sure.decide(p)[0], sure.decide(p, precision=.9)[0]
    return out


class Row:
    "What one way found over all tasks."
    def __init__(self):
        self.values = defaultdict(list)
        self.tags, self.bins = 0, 0

    def add(self, e, p, y, yes, precise, carries):
        "Add a task: `carries` are the photos with a tag; the others are in what is called `all`."
        def put(prefix, found):
            for k, v in found.items(): self.values[prefix+k].append(float(v))
        put('', judge(p[carries], y[carries], yes[carries]))
        if not carries.all(): put('all ', judge(p, y, yes))
        some = np.flatnonzero(carries)
        some = some[even(rng(0, 'even', e), y[some])]
        put('even ', judge(p[some], y[some], yes[some]))
        if precise is not None and precise[carries].any():
            put('', dict(precise=y[carries][precise[carries]].mean(), found=precise[carries][y[carries]].mean()))
        a, b = y[carries], yes[carries]
        self.tags = self.tags+np.stack([(a&b).sum(0), b.sum(0), a.sum(0)])
        self.bins = self.bins+reliability(p[carries], a)


def half(values):
    "Half of the 95 % interval of a mean over tasks."
    n = len(values)
    return float(student.ppf(.975, n-1)*np.std(values, ddof=1)/n**.5) if n>1 else 0.


def summary(values):
    "Mean and half-width in per cent."
    return [round(100*float(np.mean(values)), 2), round(100*half(values), 2)]


def line_of(way, row, rival, names):
    "The record of one way: means and intervals, differences to the rival, and every tag."
    out = dict(way=way, **{k: summary(v) for k, v in row.values.items()})
    out['over'] = {k: summary(np.subtract(row.values[k], rival.values[k])) for k in ('map', 'f1', 'even f1', 'best')}
    right, given, there = row.tags
    out['tags'] = {n: dict(precision=round(float(100*r/max(1, g)), 1), recall=round(float(100*r/max(1, t)), 1))
                   for n, r, g, t in zip(names, right, given, there)}
    if way!='nearest mean':                                    # a cosine is no probability
        out['bins'] = [[int(n), round(float(p/max(1, n)), 3), round(float(y/max(1, n)), 3)] for n, p, y in row.bins.T]
    else:
        for k in ('ece', 'even ece', 'all ece'): out.pop(k, None)
    return out


def open_bed(args):
    "The photos and tags that are asked for."
    exp = prepare(args.data, args.coco if args.data=='coco' else args.root, say=quiet)
    if args.labels=='test': labels = list(exp.split.labels('test'))
    else: labels = BASE if args.data=='voc' else coco_labels(exp)
    bed = Bed(load_space(target), exp, labels, others=True)
    say(f'{args.data}, {args.labels} labels: {", ".join(labels)}; {len(bed.ids)} photos, {args.tasks} tasks a row')
    return bed, exp


def tasks_of(bed, hidden, shots, n):
    "Tasks with all labels of a bed: task, truth of all photos that are no example, which of them carry a tag."
    for e in range(n):
        tags, support, yes, _ = bed.task(e, len(bed.labels), shots, hidden)
        rest = torch.ones(len(bed.y), dtype=torch.bool)
        rest[support] = False
        rest = rest.nonzero()[:, 0]
        y = bed.y[rest].numpy()
        yield (tags, support, yes, rest), y, y.any(1)


def rival(args):
    "Score settings of logistic regression on base labels."
    for args.data in ('voc', 'coco'):
        bed, _ = open_bed(args)
        for hidden in (True, False):
            for weight in (None, 'balanced'):
                for C in (.1, 1, 10, 100):
                    rows = [[] for _ in SHOTS]
                    for row, shots in zip(rows, SHOTS):
                        if bed.y.sum(0).min()<shots+5: continue
                        for task, y, carries in tasks_of(bed, hidden, shots, args.tasks):
                            p = logistic(bed, *task[1:], C=C, class_weight=weight)[carries]
                            row.append(judge(p, y[carries], p>=.5))
                    text = [f"{100*np.mean([r['map'] for r in row]):.1f} {100*np.mean([r['f1'] for r in row]):.1f}" for row in rows if row]
                    say(f"{'one tag listed' if hidden else 'all listed'}, {weight or 'plain':8} C {C:3}: mAP and F1 at .5 with "
                        f"{', '.join(map(str, SHOTS))} examples: {' | '.join(text)}")


def compare(args):
    "Score all ways on tasks of a bed; test labels only with --labels test."
    bed, _ = open_bed(args)
    rows = []
    for hidden in (True, False):
        for shots in SHOTS:
            if bed.y.sum(0).min()<shots+5: continue
            found = defaultdict(Row)
            for e, (task, y, carries) in enumerate(tasks_of(bed, hidden, shots, args.tasks)):
                for way, (p, yes, precise) in ways(bed, task, hidden).items(): found[way].add(e, p, y, yes, precise, carries)
            for way, row in found.items():
                r = line_of(way, row, found['logistic regression'], bed.labels)
                rows.append(dict(hidden=hidden, shots=shots, **r))
                say(f"{'one tag listed' if hidden else 'all tags listed'}, {shots:2}: {way:20} mAP {r['map'][0]:5.1f} ({r['over']['map'][0]:+5.1f})  "
                    f"F1 {r['f1'][0]:5.1f} of {r['best'][0]:5.1f} = {r['share'][0]:5.1f} %  ECE {r.get('ece', [0])[0]:4.1f}  "
                    f"precision {r.get('precise', [0])[0]:5.1f} | even: {r['even f1'][0]:5.1f}, {r['even share'][0]:5.1f} %, "
                    f"ECE {r.get('even ece', [0])[0]:4.1f} | all: {r['all f1'][0]:5.1f}, {r['all share'][0]:5.1f} %, ECE {r.get('all ece', [0])[0]:4.1f}")
    if not args.out: return
    carry = int(bed.y.any(1).sum())
    write_json(args.out, dict(
        data=args.data, labels=args.labels, tags=bed.labels, photos=carry, others=len(bed.ids)-carry, tasks=args.tasks, seed=0,
        looks=LOOKS if args.labels=='test' else 0, rival=RIVAL, space=target.name,
        protocol='a task draws examples for every tag; all other photos are tagged; means over the tags',
        interval=INTERVAL, rows=rows))


# --- what it is bad at ----------------------------------------------------------------------------------------------------

def relabelled(bed, labels, y, cos=None):
    "The same photos with other tags."
    out = copy.copy(bed)
    out.labels, out.y, out.last = labels, torch.as_tensor(y), None
    out.cos = bed.space.compare(labels) if cos is None else cos
    return out


def part_of(bed, keep):
    "Some photos of a bed."
    out = copy.copy(bed)
    out.ids, out.means, out.reads = bed.ids[keep], bed.means[keep], [x[keep] for x in bed.reads]
    return out


def precision_of(bed, args, shots, nameless=False, hidden=True):
    "Average precision of every tag in every task, of the tagger as it comes and of logistic regression, in per cent."
    ours, theirs = [], []
    for task, y, _ in tasks_of(bed, hidden, shots, args.tasks):
        f = solve(bed, *task[:3], 'unlikely', nameless)[0](task[3]).numpy()
        p = logistic(bed, *task[1:])
        for to, x in ((ours, f), (theirs, p)): to.append([average_precision_score(y[:, i], x[:, i]) for i in range(y.shape[1])])
    return np.array(ours), np.array(theirs)


def about_names(bed, args):
    "mAP with the right names, with none, and with each tag called by the name of the next one."
    wrong = relabelled(bed, bed.labels, bed.y, bed.cos.roll(1, 0))
    cases = dict(right=(bed, False), none=(bed, True), wrong=(wrong, False))
    for shots in SHOTS:
        yield dict(shots=shots) | {k: summary(precision_of(b, args, shots, no)[0].mean(1)) for k, (b, no) in cases.items()}


def about_looks(bed, exp, args):
    "AP of tags that are no objects, made from the pixels: the darkest tenth, the least sharp tenth, no colour, upright."
    x = []
    for i in bed.ids:
        im = open_rgb(exp.images.paths[i])
        small = np.asarray(im.resize((64, 64)), dtype=np.float32)
        grey = np.asarray(im.convert('L'), dtype=np.float32)
        edge = np.abs(4*grey[1:-1, 1:-1]-grey[:-2, 1:-1]-grey[2:, 1:-1]-grey[1:-1, :-2]-grey[1:-1, 2:]).mean()
        x.append((small.mean(), edge, np.ptp(small, -1).mean(), im.height/im.width))
    light, edge, colour, form = np.array(x).T
    y = np.stack([light<np.quantile(light, .1), edge<np.quantile(edge, .1), colour<8, form>1], 1)
    yield from tag_rows(relabelled(bed, ['dark', 'blurred', 'black and white', 'upright'], y), args)


def tag_rows(bed, args, shots=10):
    "AP of every tag beside its share of the photos."
    ours, theirs = precision_of(bed, args, shots)
    for i, n in enumerate(bed.labels):
        yield dict(tag=n, shots=shots, photos=int(bed.y[:, i].sum()), share=round(100*float(bed.y[:, i].float().mean()), 1),
                   tagger=summary(ours[:, i]), logistic=summary(theirs[:, i]))


def about_numbers(bed, exp, boxes, args):
    "AP of tags that count: one person, two, many; of the photos whose boxes are known."
    count = np.array([sum(b[0]=='person' for b in boxes.get(exp.images.paths[i].name, ())) for i in bed.ids])
    known = np.array([exp.images.paths[i].name in boxes for i in bed.ids])
    y = np.stack([count==1, count==2, count>4], 1)[known]
    yield from tag_rows(relabelled(part_of(bed, known), ['one person', 'two people', 'five or more people'], y), args, 5)


def about_sizes(bed, exp, boxes, args, shots=5):
    "How many of the tags that are there are found at 'auto', by the share of the image of their largest box."
    share = largest_boxes(boxes, exp.images)[np.ix_(bed.ids, exp.images.index(bed.labels))]
    found = defaultdict(list)
    for (tags, support, yes, rest), y, _ in tasks_of(bed, False, shots, args.tasks):
        score, evidence = solve(bed, tags, support, yes, 'unlikely')
        sure = fit_confidence(evidence, bed.space.prior)
        given = sure.decide(sure(score(rest)).double().numpy())[0]
        size = size_bin(share[rest])
        for i, name in enumerate(SIZES): found[name].append((given[y&(size==i)].mean(), (y&(size==i)).sum()))
    for name, v in found.items():
        recall, pairs = zip(*v)
        yield dict(size=name, shots=shots, pairs=round(float(np.mean(pairs))), recall=summary(recall))


def about_drawings(space, args):
    "mAP on composed drawings, five labels a task, with names and without, and logistic regression."
    exp = prepare('scenes', None, quick=True, say=quiet, backbone=space.backbone, size=space.size)
    ways = list(exp.split.labels('test'))
    for shots in (1, 5):
        bed = Bed(space, exp, ways)
        named, theirs = precision_of(bed, args, shots)
        yield dict(shots=shots, tags=len(ways), photos=len(bed.ids), named=summary(named.mean(1)), logistic=summary(theirs.mean(1)),
                   nameless=summary(precision_of(bed, args, shots, True)[0].mean(1)))


def limits(args):
    "Measure on base labels what the tagger is bad at."
    boxes = read_json(args.boxes)
    args.data, args.labels = 'voc', 'base'
    bed, exp = open_bed(args)
    out = dict(names=[*about_names(bed, args)], looks=[*about_looks(bed, exp, args)])
    args.data = 'coco'
    bed, exp = open_bed(args)
    out |= dict(numbers=[*about_numbers(bed, exp, boxes, args)], sizes=[*about_sizes(bed, exp, boxes, args)],
                drawings=[*about_drawings(bed.space, args)])
    for k, rows in out.items():
        for r in rows: say(f'{k}: {r}')
    if args.out: write_json(args.out, dict(tasks=args.tasks, seed=0, interval=INTERVAL, **out))


# --- six photos -----------------------------------------------------------------------------------------------------------

SIDE = 96    # pixels of a photo in the figure


def photo_name(path): return f'{path.parts[-3]} {path.stem}'


def photos(args):
    "Tag photos with five examples of every test label; the first three that are all right, and the first three that are not."
    exp = prepare('voc', args.root, say=quiet)
    labels = list(exp.split.labels('test'))
    bed = Bed(load_space(target), exp, labels)
    paths = [Path(exp.images.paths[i]) for i in bed.ids]
    _, support, yes, rest = bed.task(0, len(labels), 5)
    t = Tagger().fit([str(paths[i]) for i in support], [[n for n, x in zip(labels, row) if x] for row in yes.tolist()])
    of_name = {p.as_posix(): p for p in paths}
    found = {True: [], False: []}
    for i in rng(0, 'photos').permutation(rest.numpy()):
        p = t.predict_proba([str(paths[i])])
        given = {n: round(float(p[n].iloc[0]), 2) for n, ok in zip(t.tags_, t.decide(p.to_numpy())[0][0]) if ok}
        truth = [n for n, x in zip(labels, bed.y[i].tolist()) if x]
        here = found[set(given)==set(truth)]
        if len(here)==3: continue
        odd = [n for n in given if n not in truth] or [n for n in truth if n not in given] or list(given)
        tag = max(odd, key=lambda n: p[n].iloc[0])                # the mistake, where there is one
        why = t.explain(str(paths[i]), tag)
        spoke = [(photo_name(of_name[Path(e.name).as_posix()]), round(float(share), 2)) for e, share, _ in why.examples[:1]]
        here.append((why, dict(photo=photo_name(paths[i]), truth=truth, given=given, tag=tag, p=round(why.p, 2), spoke=spoke)))
        if all(len(v)==3 for v in found.values()): break
    some = [*found[True], *found[False]]
    root = target.parents[2]
    write_json(root/'data'/'results'/'tags_photos.json', [r for _, r in some])
    path = root/'figures'/'tagged.png'
    draw_photos(some).savefig(path, dpi=100)
    open_rgb(path).quantize(160).save(path, optimize=True)
    for _, r in some: say(r)


def draw_photos(some):
    "Draw the photos, small, with the place that speaks most for a tag."
    fig, axes = plt.subplots(2, 3, figsize=(6.9, 3.7), layout='constrained')
    for ax, (why, r) in zip(axes.flat, some):
        im = why.image.copy()
        im.thumbnail((SIDE, SIDE))
        rows, columns = why.heat.shape
        y, x = np.unravel_index(why.heat.argmax(), why.heat.shape)
        ax.imshow(im, interpolation='bilinear')
        h, w = im.height/rows, im.width/columns
        for colour, width in (('black', 2.4), ('white', 1)):
            ax.add_patch(plt.Rectangle((w*x-.5, h*y-.5), w, h, fill=False, ec=colour, lw=width))
        given = ', '.join(f'{n} {p:.2f}' for n, p in r['given'].items()) or 'nothing'
        ax.set_title(f"given: {given}\nVOC: {', '.join(r['truth'])}", fontsize=7)
        said = ', '.join(f'{n} ({s:+.2f})' for n, s in r['spoke'])
        ax.set_xlabel(f"{r['photo']}\n{r['tag']} by {said or 'its name'}", fontsize=6)
        ax.set_xticks([])
        ax.set_yticks([])
    return fig


if __name__=='__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('part', choices=('weights', 'prior', 'rival', 'compare', 'limits', 'photos'))
    parser.add_argument('--root', required=True, help='VOC')
    parser.add_argument('--coco', help='COCO')
    parser.add_argument('--to', help='weights: another file')
    parser.add_argument('--boxes', help='limits: boxes of COCO')
    parser.add_argument('--tasks', type=int, default=12)
    parser.add_argument('--data', choices=('voc', 'coco'), default='voc', help='compare: the photos')
    parser.add_argument('--labels', choices=('base', 'test'), default='base', help='compare: the tags')
    parser.add_argument('--out', help='compare: the records, as JSON')
    args = parser.parse_args()
    globals()[args.part](args)
