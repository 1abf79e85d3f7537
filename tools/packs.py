"""What fewer bytes cost: mAP of methods on the scenes, by how their local features are kept.

    python tools/packs.py            writes data/results/packs.json, the table of nbs/04b_features.ipynb
    python tools/packs.py --quick    the same on the small scenes with a short training, in minutes

Directions are fitted on the training images. The refined model is trained once, on local features in
16 bits; every packing is scored on the same test episodes, and compared with 16 bits episode by episode.
"""
import argparse, os
from dataclasses import replace
from pathlib import Path

os.environ.setdefault('FSIC_PROGRESS', '0')
from fsic_nb.core import say
from fsic_nb.evaluate import evaluate
from fsic_nb.experiment import prepare
from fsic_nb.features import Pack, extract, fit_basis
from fsic_nb.files import write_json
from fsic_nb.metrics import paired_interval
from fsic_nb.recipes import build_methods

OUT = Path(__file__).resolve().parents[1]/'data'/'results'/'packs.json'
METHODS = 'refined', 'simpleshot'


def list_packs(exp):
    "The packings, by what they are called."
    few, fewest = (fit_basis(exp.features, dim, exp.training) for dim in (512, 128))
    p = exp.features.precision
    return {'16 bits': Pack(p), '512 directions': Pack(p, few), '128 directions': Pack(p, fewest),
            '8 bits': Pack(p, int8=True), '512 directions, 8 bits': Pack(p, few, True),
            '128 directions, 8 bits': Pack(p, fewest, True)}


def measure(exp, methods, n):
    "A row for every packing: bytes an image, and what it costs each method, 1- and 5-shot."
    whole = {}
    for name, pack in list_packs(exp).items():
        store = extract(exp.images, exp.features.meta['backbone'], pack)
        row = dict(pack=name, bytes=store.row_bytes)
        for shots in (1, 5):
            found = evaluate(methods, exp.episodes('test', shots), replace(exp, features=store), n=n)
            for m, got in found.items():
                cell = f'{m}, {shots}-shot'
                ap = 100*got['map']
                base = whole.setdefault(cell, ap)
                row[cell] = [round(float(x), 2) for x in (ap.mean(), *paired_interval(ap, base))]
        say(row)
        yield row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--quick', action='store_true')
    parser.add_argument('--episodes', type=int, default=200)
    a = parser.parse_args()
    exp = prepare('scenes', quick=a.quick)
    methods = build_methods(list(METHODS), exp, quick=a.quick)
    about = dict(data='scenes', quick=a.quick, images=len(exp.images), episodes=a.episodes,
                 backbone=exp.features.meta['backbone'])
    write_json(OUT, dict(about, rows=[*measure(exp, methods, a.episodes)]))


if __name__=='__main__': main()
