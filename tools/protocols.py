"""Measure what the splits and the two filters make of real label lists: writes data/results/protocols.json, which 05b_protocols draws.

    python tools/protocols.py --labels DIR

DIR holds coco_labels.json.gz and nuswide81_labels.json.gz in the format of `fsic_nb.protocols.read_labels`:
{"names": [label, ...], part: {image: [label number, ...]}, ...}. Only counts are written, no image is named.
"""
import argparse
from pathlib import Path

import numpy as np
from fsic_nb.core import FsicError
from fsic_nb.files import write_json
from fsic_nb.data import PARTS, PROTOCOLS, filter_counts
from fsic_nb.episodes import Episodes
from fsic_nb.protocols import SPLITS, read_labels

FILES = dict(coco='coco_labels.json.gz', nuswide='nuswide81_labels.json.gz')
SHOTS, QUERIES = (1, 5), 4


def together(images, names):
    "Images that carry both labels, (len(names), len(names)); on the diagonal those that carry the label."
    y = images.labels[:, images.index(names)].astype(int)
    return (y.T @ y).tolist()


def company(images, names):
    "The label outside of `names` that is most often beside each of them, and on how many images."
    foreign = [n for n in images.names if n not in names]
    both = images.labels[:, images.index(names)].astype(int).T @ images.labels[:, images.index(foreign)]
    return {n: [foreign[int(row.argmax())], int(row.max())] for n, row in zip(names, both)}


def drawn(images, split, part, protocol, shots, n):
    "What `n` episodes of all labels with enough images are like."
    few = {}
    if part!='train': split, few = split.restrict(images, shots+QUERIES, (part,), protocol)   # training leaves out by itself
    row = dict(part=part, protocol=protocol, shots=shots, queries=QUERIES)
    try: eps = Episodes(images, split, part, shots, QUERIES, protocol=protocol)
    except FsicError as e: return dict(row, episodes=0, why=str(e))
    all_ = [eps[e] for e in range(n)]
    few = few.get(part) or eps.left_out
    shared = sum(bool(np.intersect1d(e.support, e.query).size) for e in all_)
    positives = np.stack([e.y.sum(0) for e in all_])
    return dict(row, episodes=n, labels=len(all_[0].labels), left_out=few, leaking=shared, least_positives=int(positives.min()), mean_positives=round(float(positives.mean()), 2))


def measure(images, split, n):
    "Counts before and after the filters, and episodes of every part."
    parts = [p for p in PARTS if split.labels(p)]
    return dict(hash=split.fingerprint(), counts=filter_counts(images, split),
                episodes=[drawn(images, split, p, how, k, n) for p in parts for how in PROTOCOLS for k in SHOTS])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--labels', required=True, type=Path, help='folder with the label lists')
    parser.add_argument('--episodes', type=int, default=50, help='drawn of each kind')
    parser.add_argument('--out', type=Path, default=Path(__file__).resolve().parents[1]/'data'/'results'/'protocols.json')
    a = parser.parse_args()
    out = {}
    for data, file in FILES.items():
        images = read_labels(a.labels/file, data)
        splits = [s for s in SPLITS.values() if s.name.startswith(data)]
        test = splits[0].labels('test')
        out[data] = dict(images=len(images), labels=len(images.names), hash=images.fingerprint(), test=test, together=together(images, test), company=company(images, test),
                         splits={s.name: measure(images, s, a.episodes) for s in splits})
        print(f'{data}: {len(images):,} images measured', flush=True)
    write_json(a.out, out)
    print(f'{a.out.name} written')


if __name__=='__main__': main()
