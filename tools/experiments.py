"""Measure the refined model, its parts and its rivals: each part writes one small JSON into data/results/ (40_results shows some).

    python tools/experiments.py results --data scenes           methods x shots on unseen labels, three training seeds
    python tools/experiments.py results --data voc --root DIR   the same on photographs
    python tools/experiments.py tuning [--data voc --root DIR]    learning rate of the refined model, on validation labels
    python tools/experiments.py ablation [--data voc --root DIR]  every part of the refined model, on validation labels
    python tools/experiments.py parts                           gate, dynamic convolution and their order in the paper's model
    python tools/experiments.py probes --data voc --root DIR    penalties, texts, temperature and prior of the probes, on base labels
    python tools/experiments.py labels                          the number of base labels
    python tools/experiments.py collapse                        swapped pictures, shuffled words, and six small repairs
    python tools/experiments.py places                          where the kept places lie, by size of the object
    python tools/experiments.py gallery                         figures/gallery.png: kept places, right and wrong

A part that was cut is continued: trained runs are kept under FSIC_HOME. Choices are made on validation
labels; only `results`, `gallery` and the test rows of `places` look at test labels.
"""
import argparse, os
from dataclasses import replace
from functools import partial
from pathlib import Path

os.environ.setdefault('FSIC_PROGRESS', '0')
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from fsic_nb import baselines, probes
from fsic_nb.cache import Cache
from fsic_nb.core import draw_seed, keep_freed_memory, say, write_json
from fsic_nb.data import LabelSplit
from fsic_nb.evaluate import evaluate, records, words_only
from fsic_nb.experiment import prepare
from fsic_nb.metrics import average_precision, interval, paired_interval
from fsic_nb.model import PaperConfig, PaperModel
from fsic_nb.names import class_prior, class_texts
from fsic_nb.protocols import QUERIES, SHOTS
from fsic_nb.recipes import fit, make_plan
from fsic_nb.refine import keep_helpful
from fsic_nb.refined import fit_principal
from fsic_nb.show import save_figure, show_places, style
from fsic_nb.support import Features, Support, load_episodes, mean_prototypes, simpleshot
from fsic_nb.train import Schedule, train_step
from fsic_nb.words import load_words

results_folder = Path(__file__).resolve().parents[1]/'data'/'results'


def quiet(line): pass


def train_as(exp, method, seed=0, split=None, cfg=None, schedule=None):
    "A trained model, from the cache of runs where it is there; another split, configuration or schedule than the recipe's."
    exp = replace(exp, split=split or exp.split)
    plan = make_plan(method, exp, seed, say=say, cfg=cfg)
    return fit(method, exp, seed, say=say, plan=replace(plan, schedule=schedule or plan.schedule))


def load_one(exp, eps): return load_episodes(exp, eps, Cache(exp, memory=0))


def score_maps(exp, methods, part, n, seed=0):
    "mAP of every episode: name -> shots -> (n,)."
    out = {name: {} for name in methods}
    for k in SHOTS:
        for name, r in evaluate(methods, exp.episodes(part, k, seed), exp, n=n).items(): out[name][k] = r['map']
    return out


def summary(r, base=None):
    "1-shot and 5-shot in percent with intervals, and the paired difference to `base`."
    row = {}
    for k, v in r.items():
        m, ci = interval(100*v)
        row[f'map{k}'], row[f'ci{k}'] = round(m, 2), round(ci, 2)
        if base is not None: row[f'diff{k}'], row[f'diff_ci{k}'] = (round(float(x), 2) for x in paired_interval(100*v, 100*base[k]))
    return row


# --- results: the only look at the test labels ---------------------------------------------------------------------------

def results(exp, n):
    "All methods on the same test episodes; the refined model with three training seeds."
    wagp, paper = train_as(exp, 'wagp'), train_as(exp, 'paper')
    methods = {k: f(exp.centre) for k, f in baselines.TRAINING_FREE.items()}
    methods.update(words=words_only(wagp), wagp=wagp, paper=paper, relation=train_as(exp, 'relation'), laso=train_as(exp, 'laso'))
    refined = {f'refined-{s}': train_as(exp, 'refined', seed=s) for s in (0, 1, 2)}
    if exp.scenes is not None: methods['oracle'] = baselines.oracle(exp.scenes, exp.centre)
    rows = []
    for k in SHOTS:
        eps = exp.episodes('test', k)
        scored = evaluate({**methods, **refined}, eps, exp, n=n)
        rows += [dict(r, train_seed=int(r['method'].split('-')[1]) if '-' in r['method'] else 0, method=r['method'].split('-')[0])
                 for r in records(scored, eps)]
    return rows


# --- ablation: validation labels only --------------------------------------------------------------------------------------

VARIANTS = {'the model': {}, 'no word': dict(word=False), 'no push from other labels': dict(push=False), 'mean instead of ridge': dict(solve='mean'),
            'no rounds': dict(rounds=0), 'one round': dict(rounds=1), 'three rounds': dict(rounds=3),
            'LCM: signed rule': dict(select='signed'), 'LCM: best quarter': dict(select='share'), 'no LCM': dict(select='none'),
            'no claims': dict(claims=False), 'query by its mean': dict(query='mean')}

def vocabulary(exp, cfg):
    "The same model with the backbone's vocabulary where it has none, and without where it has one."
    return replace(cfg, classes=0 if cfg.classes else len(exp.head[1]))

def judge(exp):
    "Configuration, schedule, episodes -> validation mAP of every episode: 1- and 5-shot."
    if exp.name=='voc': return folds(exp)
    return lambda cfg, schedule, n: score_maps(exp, {'refined': train_as(exp, 'refined', cfg=cfg, schedule=schedule)}, 'val', n)['refined']

def tuning(exp, n, steps):
    "The learning rate, and how long, on validation labels."
    p, score, rows = make_plan('refined', exp, say=quiet), judge(exp), []
    for lr in ((1e-3, 2e-3, 4e-3) if exp.name=='scenes' else (0., 1e-4, 1e-3)):
        r = score(p.cfg, replace(p.schedule, steps=steps, lr=lr), n)
        rows.append(dict(lr=lr, data=exp.name, part='val', episodes=n, steps=steps, seed=0, **summary(r)))
        say(rows[-1])
    return rows

def ablation(exp, n, steps):
    "Every part of the refined model left out or exchanged, trained alike, on the same validation episodes."
    p = make_plan('refined', exp, say=quiet)
    schedule = replace(p.schedule, steps=min(steps, p.schedule.steps))
    base, rows, score = None, [], judge(exp)
    for name, cfg in [*((k, replace(p.cfg, **kw)) for k, kw in VARIANTS.items()), ('no vocabulary' if p.cfg.classes else 'with vocabulary', vocabulary(exp, p.cfg))]:
        r = score(cfg, schedule, n)
        base = base or r
        rows.append(dict(variant=name, data=exp.name, part='val', episodes=n, steps=schedule.steps, seed=0, **summary(r, None if name=='the model' else base)))
        say(rows[-1])
    return rows

class Encoded:
    "A store of places that are encoded already, for a model whose space does not learn."
    def __init__(self, exp, model):
        with torch.no_grad(): self.x = torch.cat([model.encoder(exp.features[np.arange(i, min(i+256, len(exp.images)))]) for i in range(0, len(exp.images), 256)])
    def __len__(self): return len(self.x)
    def __getitem__(self, ids): return self.x[torch.as_tensor(ids)]
    def mean_of(self, ids): return None

def folds(exp):
    "Photographs have too few base labels for one validation task: three folds of labels, each held out of training once."
    hold = [['bus', 'cow', 'train'], ['car', 'horse', 'motorbike'], ['bicycle', 'person']]
    every, rest = [x for h in hold for x in h], ['aeroplane', 'bird', 'boat', 'bottle', 'chair', 'diningtable']
    whole = LabelSplit('voc, base labels', train=['cat'], val=every, test=['dog'])
    known = {}
    def one(split, cfg, schedule):
        if schedule.steps: model = train_as(exp, 'refined', split=split, cfg=cfg, schedule=schedule)
        else: model = cfg.initial_model(replace(exp, split=split)).eval()
        key = (split.name, cfg.classes)                      # beside a vocabulary nothing of the space learns
        if not cfg.classes or key not in known: known[key] = Encoded(exp, model)
        model.encoder = torch.nn.Identity()
        return model, known[key]
    def score(cfg, schedule, n):
        out = {k: np.zeros((n, len(every))) for k in SHOTS}
        for h in hold:
            split = LabelSplit(f'voc, {h[0]} fold', train=[x for x in every if x not in h]+rest, val=h, test=['dog'])
            (model, store), cols = one(split, cfg, schedule), [every.index(x) for x in h]
            for k in SHOTS:
                eps = replace(exp, split=whole).episodes('val', k)
                for i in range(0, n, 4):
                    support, query, y = load_one(replace(exp, features=store), [eps[e] for e in range(i, min(i+4, n))])
                    with torch.no_grad(): ap = average_precision(model(support)(query).mT.contiguous(), y.mT.contiguous())
                    out[k][i:i+len(ap)][:, cols] = ap[:, cols]
        return {k: np.nanmean(v, 1) for k, v in out.items()}
    return score


# --- linear probes and names ---------------------------------------------------------------------------------------------------

BASE = ['bus', 'cow', 'train', 'car', 'horse', 'motorbike', 'bicycle', 'person']

def describe_mean(exp, how):
    "Describe images by their mean local feature: as it is, centred or standardised, at length one."
    centre = exp.centre
    spread = exp.features.mean_of(exp.basis).std(0)
    change = dict(raw=lambda x: x, centred=lambda x: x-centre, standardised=lambda x: (x-centre)/spread)[how]
    return lambda x: F.normalize(change(x.means), dim=-1)

def name_choices(exp, space):
    "The name alone: texts of the classes, words and temperature."
    texts = {'minilm, gloss': ('minilm', True), 'minilm, synonyms': ('minilm', False), 'glove-50, synonyms': ('glove-50', False)}
    for text, (words, gloss) in texts.items():
        classes = class_texts(len(exp.head[1]), gloss)
        for T in (.03, .05, .07, .1):
            q = class_prior(classes, exp.images.names, load_words(words), T)
            yield dict(what='name', text=text, T=T), probes.zero_shot(space, q)

def probe_choices(exp, space):
    "Descriptions and penalties of the linear probes, and the length of the name's point."
    describe = {f'mean, {how}': describe_mean(exp, how) for how in ('raw', 'centred', 'standardised')}
    for name, d in {**describe, 'space': probes.space_vector(space)}.items():
        for alpha in (.1, 1., 10.):
            yield dict(what='ridge', image=name, penalty=alpha), probes.linear_probe(partial(probes.ridge, alpha=alpha), d)
        for C in (1., 10.):
            yield dict(what='logistic', image=name, penalty=C), probes.linear_probe(partial(probes.logistic, C=C), d)
    for C in (1., 10.): yield dict(what='svm', image='mean, raw', penalty=C), probes.linear_probe(partial(probes.svm, C=C), describe['mean, raw'])
    for length in (.5, 1., 2., 4.):
        for alpha in (.3, 1., 3.):
            yield dict(what='ridge-name', length=length, penalty=alpha), probes.ridge_around_name(space, exp.name_prior(), length, alpha)

def probe_rows(exp, n):
    "Every choice of 22b_probes on eight base labels of VOC, which are no test labels."
    space = probes.fit_space(exp)
    base = replace(exp, split=LabelSplit('voc, base labels', train=['cat'], val=BASE, test=['dog']))
    rows = []
    for row, method in [*name_choices(exp, space), *probe_choices(exp, space)]:
        rows.append(dict(**row, data='voc', part='base labels', labels=len(BASE), episodes=n, seed=0, **summary(score_maps(base, {'m': method}, 'val', n)['m'])))
        say(rows[-1])
    return rows


# --- the paper's parts -------------------------------------------------------------------------------------------------------

ORDERS = {'gate, convolution, attention': ('gate', 'conv'), 'convolution, gate, attention': ('conv', 'gate'), 'gate, attention': ('gate',),
         'convolution, attention': ('conv',), 'attention alone': ()}

def parts(exp, n):
    "Gate, dynamic convolution and their order; the keep rules of LCM in evaluation."
    rows, base = [], None
    p = make_plan('paper', exp, say=quiet)
    for name, which in ORDERS.items():
        model = train_as(exp, 'paper', cfg=replace(p.cfg, parts=which))
        r = score_maps(exp, {name: model}, 'val', n)[name]
        base = base or r
        rows.append(dict(variant=name, part='val', episodes=n, seed=0, **summary(r, None if base is r else base)))
        say(rows[-1])
    model = train_as(exp, 'paper')
    for name, kw in {'keep: best quarter': dict(keep='share'), 'keep: label-specific, signed': dict(lcm='label', keep='signed'), 'keep: all': dict(lcm='none')}.items():
        model.cfg = replace(p.cfg, **kw)
        rows.append(dict(variant=name, part='val', episodes=n, seed=0, **summary(score_maps(exp, {name: model}, 'val', n)[name], base)))
        say(rows[-1])
    return rows


# --- base labels ---------------------------------------------------------------------------------------------------------------

def labels(exp, n):
    "WAGP and the refined model after training on 1, 5 and all 25 tasks of 16 labels."
    rows = []
    for tasks in (1, 5, 25):
        split = replace(exp.split, train=exp.split.train[:tasks], name=f'{exp.split.name}, {tasks} tasks')
        for method, steps in (('wagp', 500), ('refined', 120)):
            p = make_plan(method, exp, say=quiet)
            model = train_as(exp, method, split=split, schedule=replace(p.schedule, steps=steps))
            rows.append(dict(method=method, base_labels=16*tasks, part='val', episodes=n, steps=steps, seed=0, **summary(score_maps(exp, {method: model}, 'val', n)[method])))
            say(rows[-1])
    return rows


# --- the collapse ----------------------------------------------------------------------------------------------------------------

class Repaired(PaperModel):
    "WAGP with one small repair, see REPAIRS."
    def __init__(self, cfg):
        super().__init__(cfg)
        self.repair, self.weight = '', torch.nn.Parameter(torch.zeros(()))

    def prototypes(self, support):
        v, t = self.embed(support.x, support.g)
        if self.repair=='word dropout' and self.training: t = torch.where(torch.rand(*t.shape[:-1], 1)<.5, t.mean(-2, keepdim=True), t)
        P = self.interact(support.x.map(self.interact.encode_images), support.y, v, t)
        if self.repair.startswith('residual'): P = F.normalize(P, dim=-1)+self.weight.exp()*F.normalize(mean_prototypes(v, support.y), dim=-1)
        return P, v, t

REPAIRS = ('as written', 'residual', 'eight labels an episode', 'five shots in training', 'word dropout', 'frozen principal projection',
           'residual and frozen projection')

def repaired(exp, repair, steps, n):
    "Train WAGP with a repair; (model, validation mAP at 1 and 5 shots every 100 steps)."
    from fsic_nb.data import select
    torch.manual_seed(draw_seed(0, 'weights'))
    model = Repaired(PaperConfig(exp.features.channels, exp.words.shape[1], prototype='wagp'))
    model.repair = repair
    eps = exp.episodes('train', 1, ways=8 if repair.startswith('eight') else None)
    # five shots of all 16 labels would need more pictures than a training task has
    if repair.startswith('five'): eps = exp.episodes('train', 5, queries=2, ways=8)
    if 'frozen' in repair:
        visual = model.embed.visual.requires_grad_(False)
        for p, v in zip((visual.weight, visual.bias), fit_principal(exp.features, exp.training, model.cfg.dim)): p.data.copy_(v)
    opt = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], fused=True)
    schedule, curve = Schedule(steps=steps, lr=3e-4, warmup=30), []
    for step in range(steps):
        train_step(model, opt, load_one(exp, [eps[step]]), schedule.at(step), 0, step)
        if (step+1)%100==0: curve.append(dict(step=step+1, **summary(score_maps(exp, {'m': model.eval()}, 'val', n)['m'])))
    return model, curve

def exchanged(model, what):
    "The same model shown another label's pictures, or told another label's word."
    def method(s):
        if what=='pictures': s = Support(Features(s.x.locals.flip(-3)), s.y, s.g)
        if what=='words': s = Support(s.x, s.y, s.g.roll(1, -2))
        return model(s)
    return method

@torch.no_grad()
def moved(exp, model, n):
    "How far apart prototypes of different labels are (1 - cosine), how far they move when pictures or words are exchanged; their cosine to the word; the attention's entropy over the places of the positives (1: it looks everywhere alike)."
    out = []
    for k in SHOTS:
        eps = exp.episodes('val', k)
        for e in range(n):
            s, _, _ = load_one(exp, [eps[e]])
            P, v, t = model.prototypes(s)
            far = lambda s2: (1-F.cosine_similarity(P, model.prototypes(s2)[0], dim=-1)).mean().item()
            apart = 1-F.normalize(P, dim=-1)@F.normalize(P, dim=-1).mT
            x, q = model.interact.norm(model.interact.place(s.x.locals)), model.interact.norm(t)
            a = model.interact.word_attention.attend.weights(q[0, :, None].expand(-1, x.shape[1], -1), x[0], torch.ones(x.shape[1:3], dtype=torch.bool))
            entropy = -(a*a.clamp_min(1e-12).log()).sum(-1)[s.y[0].T].mean().item()/np.log(x.shape[-2])
            out.append(dict(apart=apart.sum().item()/(P.shape[-2]*(P.shape[-2]-1)), pictures=far(Support(Features(s.x.locals.flip(-3)), s.y, s.g)), words=far(Support(s.x, s.y, s.g.roll(1, -2))),
                            cosine=F.cosine_similarity(P, t, dim=-1).mean().item(), entropy=entropy, shots=k))
    return [dict(shots=k, **{c: round(float(np.mean([r[c] for r in out if r['shots']==k])), 4) for c in ('apart', 'pictures', 'words', 'cosine', 'entropy')}) for k in SHOTS]

def collapse(exp, n, steps):
    "Everything 24_collapse shows."
    wagp, paper, refined = train_as(exp, 'wagp'), train_as(exp, 'paper'), train_as(exp, 'refined')
    methods = {f'{m}, {w}': exchanged(f, w) for m, f in dict(simpleshot=simpleshot(exp.centre), wagp=wagp, paper=paper, refined=refined).items() for w in ('as they are', 'pictures', 'words')}
    probe = [dict(method=k.split(', ')[0], exchanged=k.split(', ')[1], **summary(r)) for k, r in score_maps(exp, methods, 'val', n).items()]
    say(probe)
    repairs = []
    for repair in REPAIRS:
        model, curve = repaired(exp, repair, steps, n)
        repairs.append(dict(repair=repair, share=round(model.weight.exp().item(), 3), moved=moved(exp, model.eval(), 5), curve=curve))
        say((repair, curve[-1]))
    return dict(part='val', episodes=n, seed=0, steps=steps, probe=probe, moved=dict(wagp=moved(exp, wagp, 10)), repairs=repairs)


# --- where the kept places lie ---------------------------------------------------------------------------------------------------

@torch.no_grad()
def places(exp, n):
    "Precision and lift of the kept places, round by round, and the kept share by size of the object."
    model, rows, sizes = train_as(exp, 'refined'), [], []
    for part in ('val', 'test'):
        for k in SHOTS:
            eps, found = exp.episodes(part, k), []
            for e in range(n):
                s, _, _ = load_one(exp, [eps[e]])
                trace = []
                model.prototypes(s, trace)
                cover = torch.as_tensor(exp.scenes.coverage(s.x.ids, s.labels, exp.features.grid))[s.y]
                right = cover>=.25
                kept = torch.stack([keep_helpful(a[s.y]) for _, a in trace])                              # (rounds, pairs, L)
                found.append(torch.stack([torch.stack([(r&right).sum()/r.sum(), right.float().mean(), r.float().mean()]) for r in kept]))
                if part=='val' and k==5: sizes.append(torch.stack([cover.mean(-1), kept[-1].float().mean(-1), (kept[-1]&right).sum(-1)/kept[-1].sum(-1)], -1))
            for r, (p, chance, share) in enumerate(torch.stack(found).mean(0).tolist(), 1):
                rows.append(dict(part=part, shots=k, round=r, episodes=n, precision=round(p, 4), chance=round(chance, 4), lift=round(p/chance, 3), share=round(share, 4)))
                say(rows[-1])
    s = torch.cat(sizes).numpy()
    edges = np.quantile(s[:, 0], np.linspace(0, 1, 6))
    at = np.clip(np.searchsorted(edges, s[:, 0], side='right')-1, 0, 4)
    size = [dict(object_share=round(float(m[0]), 4), kept_share=round(float(m[1]), 4), precision=round(float(m[2]), 4), pairs=int((at==i).sum()))
            for i in range(5) for m in [s[at==i].mean(0)]]
    return dict(rows=rows, size=size, size_part='val', size_shots=5)


@torch.no_grad()
def gallery(exp):
    "figures/gallery.png: the supports of one test episode where the kept places are most and least right."
    style()
    ep, trace, rows = exp.episodes('test', 5)[0], [], (('most right', slice(-1, -4, -1)), ('least right', slice(0, 3)))
    s, _, _ = load_one(exp, [ep])
    train_as(exp, 'refined').prototypes(s, trace)
    cover, kept = exp.scenes.coverage(ep.support, ep.labels, exp.features.grid), keep_helpful(trace[-1][1][0]).numpy()
    pairs = np.argwhere(ep.y)
    precision = np.array([(kept[j, i]&(cover[j, i]>=.25)).sum()/kept[j, i].sum() for j, i in pairs])
    order = np.argsort(precision, kind='stable')
    fig, axs = plt.subplots(2, 3, figsize=(6, 4.5), dpi=75)
    for axes, (name, best) in zip(axs, rows):
        for ax, k in zip(axes, order[best]):
            j, i = pairs[k]
            label = exp.images.names[ep.labels[i]]
            show_places(exp.images.paths[ep.support[j]], ax=ax, keep=kept[j, i], truth=exp.scenes.masks(ep.support[j])[label], title=f'{label}: {100*precision[k]:.0f} % right')
        axes[0].text(-.06, .5, name, rotation=90, va='center', ha='right', transform=axes[0].transAxes)
    fig.tight_layout()
    save_figure(fig, results_folder.parents[1]/'figures'/'gallery.png', 150, dpi=150)
    say(f'figures/gallery.png written; {len(pairs)} pairs, {(precision==0).sum()} with no right place, median precision {np.median(precision):.2f}')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=['results', 'tuning', 'ablation', 'probes', 'parts', 'labels', 'collapse', 'places', 'gallery'])
    parser.add_argument('--data', choices=['scenes', 'voc'], default='scenes')
    parser.add_argument('--root', help="the data set's folder")
    parser.add_argument('--episodes', type=int, help='default: 200 for results, 60 for the rest')
    parser.add_argument('--steps', type=int, default=200, help='training steps of each ablated or repaired model; ablation on voc: 0 takes them as they begin')
    a = parser.parse_args()
    keep_freed_memory()
    if a.what=='probes' and a.data!='voc': parser.error('probes is measured on voc')
    if a.data!='scenes' and a.what not in ('results', 'tuning', 'ablation', 'probes'): parser.error(f'{a.what} is measured on scenes')
    exp = prepare(a.data, a.root)
    if a.what=='gallery': return gallery(exp)
    n = a.episodes or dict(results=200, collapse=20, places=40).get(a.what, 60)
    made = dict(results=results, probes=probe_rows, parts=parts, labels=labels, places=places).get(a.what)
    rows = dict(ablation=ablation, tuning=tuning, collapse=collapse)[a.what](exp, n, a.steps) if made is None else made(exp, n)
    name = f'{a.what}_{a.data}' if a.what in ('results', 'tuning', 'ablation') else a.what
    write_json(results_folder/f'{name}.json', rows)
    say(f'data/results/{name}.json written')


if __name__=='__main__': main()
