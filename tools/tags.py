"""What comes with the library for photographs, and what it is worth.

    python tools/tags.py weights --root VOC    data/models/photographs.safetensors: the space
    python tools/tags.py prior --root VOC --coco COCO    the prior of confidence, written into the same file

The space is made of the images of VOC that carry no test label (no label is read); the prior from eight base labels of
VOC and those labels of COCO that VOC trains or validates with. No test label is looked at.
"""
import argparse, os
from dataclasses import replace
from pathlib import Path

os.environ.setdefault('FSIC_PROGRESS', '0')
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from fsic_nb.confidence import KINDS_OF_TAG, Evidence, fit_confidence
from fsic_nb.core import rng, say, write_json
from fsic_nb.experiment import prepare
from fsic_nb.names import class_prior
from fsic_nb.partial import solve_weighted, weigh_examples, with_background
from fsic_nb.space import load_space, make_space

target = Path(__file__).resolve().parents[1]/'data'/'models'/'photographs.safetensors'
BASE = ['bus', 'cow', 'train', 'car', 'horse', 'motorbike', 'bicycle', 'person']
UNKNOWN = {k: (1.5, -.1, -.1, 0.) for k in KINDS_OF_TAG} # before `prior` has run


def quiet(line): pass


def weights(args):
    "Make the space."
    exp = prepare('voc', args.root, say=quiet)
    paths = [exp.images.paths[i] for i in exp.basis]
    space = make_space(paths, 'lite2', 336, prior=UNKNOWN)
    space.save(target)
    say(f'{target.name}: {len(paths)} images, {target.stat().st_size/1e6:.1f} MB')


# --- tasks: a few examples a tag, the rest to be tagged -------------------------------------------------------------------

class Bed:
    "Images read once in a space, and the labels that tasks are made of."
    def __init__(self, space, exp, labels):
        columns = exp.images.index(labels)
        self.ids = np.flatnonzero(exp.images.labels[:, columns].any(1))
        self.y = torch.as_tensor(exp.images.labels[np.ix_(self.ids, columns)])
        self.labels, self.space, self.cos = labels, space, space.compare(labels)
        with torch.no_grad():
            self.means = exp.features.mean_of(self.ids)
            reads = [space.named.read(exp.features[self.ids[i:i+32]]) for i in range(0, len(self.ids), 32)]
        self.reads = [torch.cat(x) for x in zip(*reads)]

    def score(self, ids, q):
        "What the names say of some images, and their vectors."
        reads = [x[ids] for x in self.reads]
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

def best_f1(p, y):
    "F1 at the best threshold, chosen with the answers."
    y = y[np.argsort(-p, kind='stable')]
    return (2*y.cumsum()/(np.arange(1, len(y)+1)+y.sum())).max()


def f1(yes, y): return 2*(yes&y).sum()/max(1, yes.sum()+y.sum())


def calibration_error(p, y, bins=10):
    "Mean distance of a probability and the share that is right, over ten bins."
    b = np.clip((p*bins).astype(int), 0, bins-1)
    return sum(abs((p-y)[b==k].sum()) for k in range(bins))/p.size


def judge(p, y, yes, precise=None):
    "Numbers of one task: means over tags."
    tags = [i for i in range(y.shape[1]) if y[:, i].any()]
    out = dict(map=np.mean([average_precision_score(y[:, i], p[:, i]) for i in tags]),
               f1=np.mean([f1(yes[:, i], y[:, i]) for i in tags]),
               best=np.mean([best_f1(p[:, i], y[:, i]) for i in tags]), ece=calibration_error(p, y))
    if precise is not None and precise.any(): out |= dict(precise=y[precise].mean(), found=precise[y].mean())
    return out


def even(draw, y, each=15):
    "The same number of photos of every tag, as in an episode."
    keep = []
    for i in range(y.shape[1]): keep += [j for j in draw.permutation(np.flatnonzero(y[:, i])) if j not in keep][:each]
    return np.array(keep)


def logistic(bed, support, yes, rest):
    "What a user would do instead: scikit-learn on the same mean features."
    x = torch.nn.functional.normalize(bed.means, dim=-1)
    out = np.zeros((len(rest), yes.shape[1]))
    for i in range(yes.shape[1]):
        y = yes[:, i].numpy()
        if y.all() or not y.any(): continue
        fitted = LogisticRegression(C=10, max_iter=1000).fit(x[support].numpy(), y)
        out[:, i] = fitted.predict_proba(x[rest].numpy())[:, 1]
    return out


def rows_of(bed, e, shots, hidden):
    "All ways to tag one task: name -> numbers."
    tags, support, yes, rest = bed.task(e, len(bed.labels), shots, hidden)
    y = bed.y[rest].numpy()
    out = {}
    for how in ('unlikely', 'no', 'unknown') if hidden else ('no', 'unlikely'):
        score, evidence = solve(bed, tags, support, yes, how)
        sure = fit_confidence(evidence, bed.space.prior)
        f = score(rest)
        p = sure(f).double().numpy()
        out[f'tagger, {how}'] = p, sure.decide(p)[0], sure.decide(p, precision=.9)[0], None
        if how=='unlikely' or not hidden and how=='no':
            raw = ((f+1)/2).clamp(0, 1).double().numpy()
            out[f'raw score, {how}'] = raw, raw>=.5, None, None
    p = logistic(bed, support, yes, rest)
    out['logistic regression'] = p, p>=.5, p>=.9, None
    q = class_prior(bed.cos)
    nothing = Evidence(torch.zeros(0, len(tags)), yes[:0], yes[:0], torch.zeros(0, len(tags)), torch.ones(len(tags)).bool())
    sure = fit_confidence(nothing, bed.space.prior)
    p = sure(bed.score(rest, q)[0]).double().numpy()
    out['the name alone'] = p, sure.decide(p)[0], sure.decide(p, precision=.9)[0], None
    some = even(rng(0, 'even', e), y)
    found = {}
    for how, (p, yes, precise, _) in out.items():
        found[how] = judge(p, y, yes, precise)
        found[how] |= {f'{k}, even': v for k, v in judge(p[some], y[some], yes[some]).items()}
    return found


def compare(args):
    "Score everything on tasks of a bed; test labels only with --labels test."
    space = load_space(target)
    exp = prepare(args.data, args.coco if args.data=='coco' else args.root, say=quiet)
    if args.labels=='test': labels = exp.split.labels('test')
    elif args.data=='voc': labels = BASE
    else: labels = coco_labels(exp)
    bed = Bed(space, exp, labels)
    say(f'{args.data}, {args.labels} labels: {", ".join(labels)}; {len(bed.ids)} photos, {args.tasks} tasks a row')
    records = []
    for hidden in (True, False):
        for shots in (1, 3, 5, 10):
            if bed.y.sum(0).min()<shots+5 and args.data=='coco' and shots>5: continue
            found = [rows_of(bed, e, shots, hidden) for e in range(args.tasks)]
            for how in found[0]:
                values = {k: [f[how][k] for f in found if k in f[how]] for k in found[0][how]}
                mean = {k: round(100*float(np.mean(v)), 2) for k, v in values.items() if v}
                diff = np.array([f[how]['map']-f['logistic regression']['map'] for f in found])
                half = 1.96*diff.std(ddof=1)/len(diff)**.5 if len(diff)>1 else 0
                records.append(dict(data=args.data, labels=args.labels, hidden=hidden, shots=shots, how=how, tasks=args.tasks,
                                    **mean, over_logistic=[round(100*float(diff.mean()), 2), round(100*float(half), 2)]))
                r = records[-1]
                say(f"{'one tag listed' if hidden else 'all tags listed'}, {shots:2}: {how:22} mAP {r['map']:5.1f} ({r['over_logistic'][0]:+5.1f})  "
                    f"F1 {r['f1']:5.1f} of {r['best']:5.1f} = {100*r['f1']/r['best']:5.1f} %  ECE {r['ece']:4.1f}  precision {r.get('precise', 0):5.1f} "
                    f"| even: {r['f1, even']:5.1f} of {r['best, even']:5.1f} = {100*r['f1, even']/r['best, even']:5.1f} %  ECE {r['ece, even']:4.1f}")
    if args.out: write_json(args.out, records)


if __name__=='__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('part', choices=('weights', 'prior', 'compare'))
    parser.add_argument('--root', required=True, help='VOC')
    parser.add_argument('--coco', help='COCO')
    parser.add_argument('--tasks', type=int, default=12)
    parser.add_argument('--data', choices=('voc', 'coco'), default='voc', help='compare: the photos')
    parser.add_argument('--labels', choices=('base', 'test'), default='base', help='compare: the tags')
    parser.add_argument('--out', help='compare: the records, as JSON')
    args = parser.parse_args()
    globals()[args.part](args)
