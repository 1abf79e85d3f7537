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
from fsic_nb.confidence import KINDS_OF_TAG, Evidence
from fsic_nb.core import rng, say
from fsic_nb.experiment import prepare
from fsic_nb.names import class_prior
from fsic_nb.partial import solve_weighted, weigh_examples, with_background
from fsic_nb.space import load_space, make_space

target = Path(__file__).resolve().parents[1]/'data'/'models'/'photographs.safetensors'
BASE = ['bus', 'cow', 'train', 'car', 'horse', 'motorbike', 'bicycle', 'person']
UNKNOWN = {k: (1.5, -.1, -.1) for k in KINDS_OF_TAG} # before `prior` has run


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
    return lambda ids: out.correction(*read(ids)), Evidence(out.left[:len(s)], yes, w, named)


# --- the prior of confidence ----------------------------------------------------------------------------------------------

def fit_prior(scores, y, ratio, w):
    "Maximum likelihood of log a, c and the change of c with the ratio."
    x = torch.tensor([1., 0., 0.], requires_grad=True)
    lbfgs = torch.optim.LBFGS([x], max_iter=200, line_search_fn='strong_wolfe')
    def loss():
        lbfgs.zero_grad()
        z = x[0].exp()*(scores-x[1]-x[2]*ratio)
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
        count = dict(zip(exp.images.names, exp.images.counts().tolist()))
        test = {'cat', 'dog', 'potted plant', 'sheep', 'couch', 'tv'}
        labels = BASE if data=='voc' else [n for n in exp.images.names if count[n]>=10 and n not in test]
        beds.append(Bed(space, exp, labels))
        say(f'{data}: {len(beds[-1].ids)} images, labels {", ".join(labels)}')
    found = {k: ([], [], [], []) for k in KINDS_OF_TAG}
    for e in range(args.tasks):
        for bed in beds:
            n_tags = int(rng(0, 'tags', e).integers(3, min(12, len(bed.labels))+1))
            for shots in (1, 3, 5, 10) if len(bed.ids)>1000 else (1, 3):
                for how, nameless in ((h, n) for h in ('unlikely', 'no', 'unknown', 'word') for n in (False, True)):
                    if how=='word' and nameless: continue
                    task = bed.task(e, n_tags, shots, hidden=how!='no')
                    if how=='word':
                        if shots>1: continue
                        q = class_prior(bed.cos[task[0]])
                        f, kinds, ratio = bed.score(task[3], q)[0], ['word']*n_tags, torch.zeros(n_tags)
                    else:
                        score, evidence = solve(bed, *task[:3], how, nameless)
                        f, kinds = score(task[3]), evidence.kinds()
                        ratio = torch.log((evidence.against/evidence.counts.clamp_min(1)).clamp(.1, 100))
                    y = bed.y[task[3]][:, task[0]].float()
                    for i, k in enumerate(kinds):
                        for to, x in zip(found[k], (f[:, i], y[:, i], ratio[i].expand(len(f)), torch.full((len(f),), 1/len(f)))): to.append(x)
    table = {k: fit_prior(*map(torch.cat, v)) for k, v in found.items()}
    for k, v in table.items(): say(f'{k:15} log a {v[0]:5.2f}, c {v[1]:5.2f}, change with log ratio {v[2]:5.2f}  ({len(found[k][0])} tags)')
    replace(space, prior=table).save(target)


if __name__=='__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('part', choices=('weights', 'prior'))
    parser.add_argument('--root', required=True, help='VOC')
    parser.add_argument('--coco', help='COCO')
    parser.add_argument('--tasks', type=int, default=12)
    args = parser.parse_args()
    globals()[args.part](args)
