"""Measure how names are read, on photographs; each part writes data/results/named_PART.json.

    python tools/names.py settings   the numbers of 16_named, one at a time, and what did not help
    python tools/names.py pseudo     the same numbers, chosen on pseudo-labels of unlabelled photos
    python tools/names.py words      the class prior instead of GloVe, in other methods
    python tools/names.py networks   networks and sizes: mAP
    python tools/names.py speed      images/s and bytes an image of the same, on a quiet machine
    python tools/names.py figure     figures/names.png, of photographs that scikit-image carries

All but the last need `--root` (VOC) and `--coco` (COCO photographs), which are not part of the repository.
`settings` and `pseudo` use labels that no table tests: eight base labels of VOC (strict filter),
and those of COCO that VOC trains or validates with (masked). `words` and `networks` also look at
test labels, once, with these settings.
"""
import argparse, copy, io, os, tempfile
from dataclasses import replace
from pathlib import Path

os.environ.setdefault('FSIC_PROGRESS', '0')
import matplotlib.pyplot as plt
import numpy as np
import skimage
import torch
import torch.nn.functional as F
from matplotlib.colors import to_rgb
from PIL import Image
from fsic_nb.backbones import classifier, load_backbone
from fsic_nb.core import keep_freed_memory, rng, say
from fsic_nb.files import write_json
from fsic_nb.data import ImageSet, LabelSplit
from fsic_nb.episodes import Episodes
from fsic_nb.evaluate import evaluate
from fsic_nb.experiment import draw_test, prepare, widest_episodes
from fsic_nb.features import extract
from fsic_nb.metrics import interval, paired_interval
from fsic_nb.named import Named, evidence, fit_named, fit_space, name_points
from fsic_nb.names import class_cosines, class_prior, class_texts
from fsic_nb.pictures import open_rgb
from fsic_nb.probes import ridge_around_name
from fsic_nb.recipes import build_methods
from fsic_nb.refine import cosines, log_mean_exp
from fsic_nb.show import PALETTE, show_image, style
from fsic_nb.support import Support, mean_prototypes
from fsic_nb.words import load_words

import figures

results_folder = Path(__file__).resolve().parents[1]/'data'/'results'
SHOTS = (0, 1, 5)
BASE = ['bus', 'cow', 'train', 'car', 'horse', 'motorbike', 'bicycle', 'person']


# --- beds without test labels --------------------------------------------------------------------

def validation(exp, n):
    "Episodes of labels that no table tests: number of shots -> Episodes."
    if exp.name=='voc':
        split = LabelSplit('voc, base labels', train=['cat'], val=BASE, test=['dog'])
        return {k: replace(exp, split=split).episodes('val', k) for k in SHOTS}
    names = [x for x in exp.images.names if x not in exp.split.labels('test')]
    split = LabelSplit(exp.images.name, [], [], names)
    return {k: widest_episodes(exp.images, split, k, n=max(n, 20), protocol='masked') for k in SHOTS}


def tests(exp, n):
    "Episodes of the test labels."
    return {k: draw_test(exp, k, n, say=lambda line: None) for k in SHOTS}


def scored(methods, exp, episodes, n):
    "Score methods: method -> {shots: mAP of each episode in percent}."
    out = {m: {} for m in methods}
    for k, eps in episodes.items():
        some = {m: f for m, f in methods.items() if k or getattr(f, 'zero_shot', False)}
        for m, r in evaluate(some, eps, exp, n=n).items(): out[m][k] = 100*r['map']
    return out


def row(maps, base=None):
    "Mean and interval of every number of shots, and paired differences to another method."
    out = {}
    for k, v in maps.items():
        out[str(k)] = [round(float(x), 2) for x in interval(v)]
        if base is None or k not in base: continue
        out[f'{k} diff'] = [round(float(x), 2) for x in paired_interval(v, base[k])]
    return out


# --- settings ------------------------------------------------------------------------------------

def varied(named, kind=Named, cos=None, **dials):
    "The same method with other numbers, or read in another way."
    cos = named.cos if cos is None else cos
    return kind(named.encoder, named.rates, cos, replace(named.dials, **dials))


def with_prior(**choices):
    "A kind of method whose prior is made with other temperatures."
    class Varied(Named):
        "Read names with another prior."
        def prior(self, labels):
            "Say which classes the labels should excite."
            return class_prior(self.cos[labels], **choices)
    return Varied


class Windows(Named):
    "Read names in windows of places instead of single ones."
    window = 3
    def read(self, f):
        "Average the local features of every window first, for the places alone."
        side = round(f.shape[-2]**.5)
        maps = f.mT.unflatten(-1, (side, side))
        pooled = F.avg_pool2d(maps.flatten(0, -4), self.window, 1).unflatten(0, maps.shape[:-3])
        v, whole, _ = super().read(f)
        return v, whole, super().read(pooled.flatten(-2).mT)[-1]


class Wide(Windows):
    "The same with windows of 5 x 5."
    window = 5


class AtPlaces(Named):
    "Look for what the examples taught at the places, too."
    weight = .5
    def encode(self, f):
        "Local features in the space, of length one."
        return F.normalize(self.encoder(f), dim=-1)

    def __call__(self, support):
        "Add the soft maximum of what the examples taught over the places."
        labels = torch.as_tensor(support.labels)
        c = self.correct(support)
        def scorer(query):
            at = log_mean_exp(cosines(query.map(self.encode), c.P), c.P.new_tensor(10.))
            return c(*self.read_name(query, labels))+self.weight*at
        return scorer


def choices(named):
    "What is tried: what -> method."
    out = {'as chosen': named}
    for key, values in dict(whole=(0, .6), point=(0, 1.4), places=(0, .075, .3), beta=(1, 2, 8),
                            alpha=(.75, 3), doubt=(0, 3)).items():
        for v in values: out[f'{key} = {v:g}'] = varied(named, **{key: float(v)})
    for prior in (dict(R=None), dict(R=.05), dict(T=.05), dict(T=.1)):
        text = ', '.join(f'{k} = {v}' for k, v in prior.items())
        out[text] = varied(named, with_prior(**prior))
    for whole in (.3, .7):
        for point in (.7, 1.4, 2.):
            key = f'no places, whole = {whole:g}, point = {point:g}'
            out[key] = varied(named, whole=whole, point=point, places=0.)
    out['windows of 3 x 3 places'] = varied(named, Windows)
    out['windows of 5 x 5 places'] = varied(named, Wide)
    out['the examples at the places, too'] = varied(named, AtPlaces)
    return out


def settings(a):
    "One number at a time around the choice, on labels that no table tests."
    rows = {}
    for data, root in (('voc', a.root), ('coco', a.coco)):
        exp = prepare(data, root)
        named = fit_named(exp)
        methods = choices(named)
        words = load_words('minilm')
        plain = class_cosines(class_texts(1000), exp.images.names, words, ('{}',))
        methods['the bare name, no phrases'] = varied(named, cos=torch.as_tensor(plain))
        mixed = named.cos[torch.as_tensor(rng(0, 'exchanged').permutation(len(named.cos)))]
        for doubt in (0., 1.):
            key = f'names exchanged, doubt = {doubt:g}'
            methods[key] = varied(named, cos=mixed, doubt=doubt)
        methods['no name at all'] = varied(named, whole=0., point=0., places=0.)
        methods['ridge around the name'] = ridge_around_name(named.encoder, named.cos)
        # a few at a time: together they would remember too much
        names = list(methods)
        found = {}
        for i in range(0, len(names), 12):
            some = {m: methods[m] for m in {names[0]: 0, **dict.fromkeys(names[i:i+12])}}
            found.update(scored(some, exp, validation(exp, a.episodes), a.episodes))
            say(f'          {data}: {min(i+12, len(names))} of {len(names)}')
        for m, maps in found.items():
            base = None if m=='as chosen' else found['as chosen']
            rows.setdefault(m, dict(what=m))[data] = row(maps, base)
    return list(rows.values())


# --- pseudo-labels -------------------------------------------------------------------------------

LIKELY = .2    # probability from which a class counts as a pseudo-label
ENOUGH = 12    # photographs a class needs

def pseudo_experiment(exp, other):
    "Unlabelled photos with the classes another network sees in them, which are hidden from ours."
    weight, bias = other.head
    p = (other.features.mean_of(other.basis)@weight.T+bias).softmax(-1)
    seen = p>LIKELY
    classes = (seen.sum(0)>=ENOUGH).nonzero()[:, 0]
    texts = class_texts(1000, gloss=False)
    names = [texts[c].split(',')[0] for c in classes]
    labels = torch.zeros(len(exp.images), len(names), dtype=torch.bool)
    labels[torch.as_tensor(other.basis)] = seen[:, classes]
    images = ImageSet(exp.images.paths, names, labels.numpy(), 'pseudo-labels')
    split = LabelSplit('pseudo-labels', [], [], names)
    return replace(exp, name='pseudo', images=images, split=split, protocol='masked'), classes


def pseudo(a):
    "Choose the numbers on pseudo-labels of photos whose labels nobody looks at."
    exp = prepare('voc', a.root)
    made, classes = pseudo_experiment(exp, prepare('voc', a.root, backbone='lite0'))
    encoder = fit_space(exp)
    encoder.vocabulary.classes.bias.data[classes] = -30.       # hidden: a new label is not a class
    made.__dict__['basis'] = exp.basis
    named = fit_named(made, encoder)
    named.cos[:, classes] = -1.
    episodes = {k: Episodes(made.images, made.split, 'test', k, 4, 0, 'masked', ways=8)
                for k in (0, 1, 5)}
    of = ('as chosen', 'whole', 'point', 'places', 'alpha', 'doubt')
    methods = {m: f for m, f in choices(named).items() if m.startswith(of)}
    methods['no name at all'] = varied(named, whole=0., point=0., places=0.)
    names = list(methods)
    found = {}
    for i in range(0, len(names), 3):          # every episode has labels of its own: much to remember
        some = {m: methods[m] for m in {names[0]: 0, **dict.fromkeys(names[i:i+3])}}
        found.update(scored(some, made, episodes, a.episodes))
    return [dict(what=m, labels=len(classes), pseudo=row(v, None if m=='as chosen'
                 else found['as chosen'])) for m, v in found.items()]


# --- words in other methods ----------------------------------------------------------------------

def mean_in(encoder, points=None, weight=1.):
    "SimpleShot in a space, perhaps with the names' points added to the means."
    def method(support):
        v = support.x.map(encoder.whole)
        middle = v.mean(-2, keepdim=True)
        P = F.normalize(mean_prototypes(v-middle, support.y), dim=-1)
        if points is not None: P = P+weight*points[torch.as_tensor(support.labels)]
        return lambda query: F.normalize(query.map(encoder.whole)-middle, dim=-1)@P.mT
    return method


def with_points(model, points, weight=1.):
    "A refined model whose word is the name's point instead of a regression from GloVe."
    other = copy.copy(model)
    other._modules = {**model._modules, 'word': torch.nn.Identity()}
    other.encode_images = model.encode_images
    def method(support):
        g = weight*points[torch.as_tensor(support.labels)]
        return other(Support(support.x, support.y, g))
    return method


def words(a):
    "The same class prior in other methods, on VOC's test labels; lite0, whose models are there."
    exp = prepare('voc', a.root, backbone='lite0')
    methods = build_methods(['simpleshot', 'ridge-space', 'ridge-name', 'name-places', 'named',
                             'named-whole', 'refined', 'paper-best'], exp, say=say)
    named = methods['named']
    q = class_prior(named.cos, R=None)
    points = name_points(named.encoder, q)
    described = replace(exp, words=(q.sqrt()-named.encoder.vocabulary.mean).float())
    methods['mean, our space'] = mean_in(named.encoder)
    methods['mean, our space, with the name'] = mean_in(named.encoder, points)
    methods['refined with the name'] = with_points(methods['refined'], points)
    best = build_methods(['paper-best'], described, say=say)['paper-best']
    g = described.words
    def paper(support):
        # without numbers of labels no cache of GloVe's vectors is asked
        return best(Support(support.x, support.y, g[torch.as_tensor(support.labels)]))
    methods['paper-best with the name'] = paper
    found = scored(methods, exp, {k: e for k, e in tests(exp, a.episodes).items() if k}, a.episodes)
    return [dict(what=m, voc=row(v, None if m=='named' else found['named']))
            for m, v in found.items()]


# --- networks and sizes --------------------------------------------------------------------------

NETWORKS = [('lite0', 224), ('lite1', 240), ('lite2', 260), ('lite0', 336), ('lite2', 336),
            ('lite2', 448)]

def measured_speed(images, backbone, n=240, runs=3):
    "Images a second of the fastest extraction into an empty folder, and bytes an image."
    rates = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            store = extract(images.paths[:n], backbone, root=folder)
            rates.append(store.rate)
            size = store.row_bytes
    return round(max(rates), 1), size


def speed(a):
    "Time the extraction with every network and size."
    images = prepare('coco', a.coco).images
    rows = []
    for name, size in NETWORKS:
        rate, size_bytes = measured_speed(images, load_backbone(name, size=size))
        rows.append(dict(backbone=name, size=size, images_s=rate, bytes=size_bytes))
        say(rows[-1])
    return rows


def networks(a):
    "Score a network and a size on validation and test labels."
    rows = []
    for name, size in NETWORKS:
        found = dict(backbone=name, size=size)
        for data, root in (('coco', a.coco), ('voc', a.root)):
            exp = prepare(data, root, backbone=name, size=size)
            keys = ['simpleshot', 'ridge-space', 'ridge-name', 'named-whole', 'named']
            methods = build_methods(keys, exp, say=say)
            for part, drawn, n in (('val', validation, 60), ('test', tests, a.episodes)):
                maps = scored(methods, exp, drawn(exp, n), n)
                found[f'{data} {part}'] = {m: row(v, None if m=='named' else maps['named'])
                                           for m, v in maps.items()}
        rows.append(found)
        say(found)
    return rows


# --- a figure ------------------------------------------------------------------------------------

PHOTOS = {'chelsea.png': 'cat', 'coffee.png': 'coffee', 'motorcycle_left.png': 'motorbike'}
OTHERS = ['rocket.jpg', 'astronaut.png', 'horse.png', 'clock_motion.png', 'camera.png', 'page.png',
          'moon.png']

def heat(ax, file, values, most):
    "Lay values at places over a photograph without its colours, smoothly; `most` is full orange."
    grey = np.asarray(open_rgb(file).convert('L').resize((448, 448)))
    show_image(np.repeat(110+.55*grey[..., None], 3, -1).astype(np.uint8), ax, size=448)
    strength = Image.fromarray((values/most).clamp(0, 1).numpy()).resize((448, 448), Image.BICUBIC)
    colour = np.broadcast_to(to_rgb(PALETTE[1]), (448, 448, 3))
    ax.imshow(np.dstack([colour, .8*np.asarray(strength).clip(0, 1)]), extent=(0, 448, 448, 0))


@torch.inference_mode()
def figure(a):
    "Draw where three names are seen in three photographs, without any example."
    folder = Path(skimage.__file__).parent/'data'
    backbone = load_backbone('lite2', size=336, device='cpu')
    files = [folder/name for name in (*PHOTOS, *OTHERS)]
    f = torch.cat([backbone(backbone.transform(file)[None]) for file in files])
    weight, bias = classifier('lite2')
    p = ((f@weight.T+bias)/2.5).softmax(-1)
    cos = class_cosines(class_texts(1000), list(PHOTOS.values()), load_words('minilm'))
    e = evidence(p[:3], class_prior(torch.as_tensor(cos)).expand(3, -1, -1), p.mean((0, 1)))
    style()
    fig, axes = plt.subplots(3, 4, figsize=(9, 6.9), layout='constrained')
    fig.get_layout_engine().set(w_pad=.1, h_pad=.1)
    most = .7*e.max().item()                # one scale for all nine
    for row, file, image in zip(axes, files, e):
        show_image(file, row[0], size=448)
        for ax, values in zip(row[1:], image): heat(ax, file, values.view(backbone.grid), most)
    for ax, name in zip(axes[0], ('photograph', *(f'“{name}”' for name in PHOTOS.values()))):
        ax.set_title(name, fontsize=13, fontweight='bold', loc='center')
    drawn = io.BytesIO()
    fig.savefig(drawn, dpi=200)
    figures.write(Image.open(drawn, formats=['PNG']).convert('RGB'), results_folder.parents[1]/'figures'/'names.png')


PARTS = dict(settings=settings, pseudo=pseudo, words=words, networks=networks,
             speed=speed, figure=figure)


def main():
    "Run parts and write their files."
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('parts', nargs='+', choices=PARTS)
    parser.add_argument('--root', help='folder of VOC')
    parser.add_argument('--coco', help='folder of COCO photographs')
    parser.add_argument('--episodes', type=int, help='default: 60, on test labels 200')
    a = parser.parse_args()
    if not a.root and a.parts!=['figure']: parser.error('--root, the folder of VOC, is missing')
    keep_freed_memory()
    for part in a.parts:
        n = a.episodes or (200 if part in ('words', 'networks') else 60)
        rows = PARTS[part](argparse.Namespace(root=a.root, coco=a.coco, episodes=n))
        if rows is None: continue
        write_json(results_folder/f'named_{part}.json', dict(episodes=n, seed=0, rows=rows))
        say(f'named_{part}.json written')


if __name__=='__main__': main()
