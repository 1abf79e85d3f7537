"""Measure the refined model, its parts and its rivals: each part writes one small JSON into data/results/ (40_results shows some).

    python tools/experiments.py results --data scenes           methods x shots on unseen labels, three training seeds
    python tools/experiments.py results --data voc --root DIR   the same on photographs
    python tools/experiments.py tuning [--data voc --root DIR]    learning rate of the refined model, on validation labels
    python tools/experiments.py ablation [--data voc --root DIR]  every part of the refined model, on validation labels
    python tools/experiments.py parts                           gate, dynamic convolution and their order in the paper's model
    python tools/experiments.py probes --data voc --root DIR --coco DIR    penalties, texts, temperature and prior of the probes, on base labels
    python tools/experiments.py labels                          the number of base labels
    python tools/experiments.py row [--data voc --root DIR]     the paper's row at its best, and where it loses, on validation labels
    python tools/experiments.py collapse                        exchanged images and words
    python tools/experiments.py places                          where the kept places lie, by size of the object
    python tools/experiments.py gallery                         figures/gallery.png: kept places, right and wrong
    python tools/experiments.py chance --data voc --root DIR    the chance level, into records that were measured without it

A part that was cut is continued: trained runs are kept under FSIC_HOME. Choices are made on validation
labels; only `results`, `gallery` and the test rows of `places` look at test labels.
"""
import argparse, os, time
from copy import deepcopy
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
from fsic_nb.core import draw_seed, fingerprint, hash_code, home, keep_freed_memory, say
from fsic_nb.files import read_json, write_json
from fsic_nb.data import LabelSplit
from fsic_nb.embed import copy_layer, score
from fsic_nb.evaluate import evaluate, records, words_only
from fsic_nb.experiment import Experiment, draw_test, prepare, read_images, widest_episodes
from fsic_nb.metrics import average_precision, chance_level, interval, paired_interval
from fsic_nb.model import PaperConfig, PaperModel, mean_in_space
from fsic_nb.named import fit_space
from fsic_nb.names import class_cosines, class_texts
from fsic_nb.protocols import METHOD_NAMES, QUERIES, SHOTS, Options
from fsic_nb.prototypes import WAGP
from fsic_nb.recipes import build_methods, by_shots, fit, make_plan
from fsic_nb.refine import keep_helpful
from fsic_nb.show import save_figure, show_places, style
from fsic_nb.support import can_score, Features, load_episodes, mean_prototypes, simpleshot, Support
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

RIVALS = ('name', 'logistic', 'svm', 'ridge-space', 'ridge-name', 'refined-whole', 'refined', 'name-places', 'named-whole')

def against(scored, name):
    "Paired differences of a method to its rivals: rival -> [difference, half-width of the 95 % interval], in points."
    diffs = {r: paired_interval(100*scored[name]['map'], 100*scored[r]['map']) for r in RIVALS if r in scored and r!=name}
    return {r: [round(float(x), 2) for x in d] for r, d in diffs.items()}

def results(exp, n):
    "All methods on the same test episodes, without and with examples; trained ones of ours and of the paper with three training seeds."
    names = [m for m in METHOD_NAMES if m!='oracle' or exp.scenes is not None]
    # beside many places what the paper trains is slow: only its best form, unless it is the network of before
    if exp.network not in ('lite0@224',): names = [m for m in names if m not in ('wagp', 'words', 'paper', 'paper-mean', 'relation', 'laso', 'localknn')]
    methods = build_methods(names, exp, say=say)
    paper = {m for m in methods if m in ('wagp', 'words') or m.startswith('paper')}
    reads = {m for m in methods if m.startswith('named') or m=='name-places'}
    groups = [{m: f for m, f in methods.items() if m not in paper|reads}, {m: methods[m] for m in methods if m in reads}, {m: methods[m] for m in methods if m in paper}]
    again = ['paper-best', 'refined'] if exp.network=='lite0@224' else ['refined']
    for s in (1, 2): groups.append({f'{m}#{s}': f for m, f in build_methods(again, exp, seed=s, say=say).items()})
    rows = []
    for k in (0, *SHOTS):
        eps, scored = exp.episodes('test', k), {}
        # group by group, since every model remembers the images it has encoded
        for methods in groups: scored.update(evaluate({m: f for m, f in methods.items() if can_score(f, k)}, eps, exp, n=n))
        for r in records(scored, eps):
            method, _, seed = r['method'].partition('#')
            rows.append(dict(r, to=against(scored, r['method']), method=method, train_seed=int(seed or 0), backbone=exp.network))
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

HOLD = [['bus', 'cow', 'train'], ['car', 'horse', 'motorbike'], ['bicycle', 'person']]
EVERY = [x for h in HOLD for x in h]
WHOLE = LabelSplit('voc, base labels', train=['cat'], val=EVERY, test=['dog'])

def fold_split(h):
    "The split that holds the labels `h` out of training."
    rest = ['aeroplane', 'bird', 'boat', 'bottle', 'chair', 'diningtable']
    return LabelSplit(f'voc, {h[0]} fold', train=[x for x in EVERY if x not in h]+rest, val=h, test=['dog'])

def folds(exp):
    "Photographs have too few base labels for one validation task: three folds of labels, each held out of training once."
    known = {}
    def one(split, cfg, schedule):
        if schedule.steps: model = train_as(exp, 'refined', split=split, cfg=cfg, schedule=schedule)
        else: model = cfg.initial_model(replace(exp, split=split)).eval()
        key = (split.name, cfg.classes)                      # beside a vocabulary nothing of the space learns
        if not cfg.classes or key not in known: known[key] = Encoded(exp, model)
        model.encoder = torch.nn.Identity()
        return model, known[key]
    def score(cfg, schedule, n):
        out = {k: np.zeros((n, len(EVERY))) for k in SHOTS}
        for h in HOLD:
            (model, store), cols = one(fold_split(h), cfg, schedule), [EVERY.index(x) for x in h]
            for k in SHOTS:
                eps = replace(exp, split=WHOLE).episodes('val', k)
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
            # the prior's own temperature is .07
            cos = torch.as_tensor(class_cosines(classes, exp.images.names, load_words(words))).float()*.07/T
            yield dict(what='name', text=text, T=T), probes.zero_shot(space, cos)

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
            yield dict(what='ridge-name', length=length, penalty=alpha), probes.ridge_around_name(space, exp.name_cosines(), length, alpha)

def probe_rows(exp, n, coco=None):
    "Every choice of 22b_probes on labels that no table tests: eight base labels of VOC, and for the name those of COCO that VOC trains or validates with."
    space = fit_space(exp)
    base = replace(exp, split=LabelSplit('voc, base labels', train=['cat'], val=BASE, test=['dog']))
    rows = []
    def add(row, exp, episodes, method):
        scored = {k: evaluate({'m': method}, eps, exp, n=n)['m']['map'] for k, eps in episodes.items()}
        labels = {k: len(eps[0].labels) for k, eps in episodes.items()}
        rows.append(dict(**row, data=exp.name, part='no test labels', labels=labels[1], labels5=labels[5], episodes=n, seed=0, **summary(scored)))
        say(rows[-1])
    drawn = {k: base.episodes('val', k) for k in SHOTS}
    for row, method in [*name_choices(exp, space), *probe_choices(exp, space)]: add(row, base, drawn, method)
    if coco is None: return rows
    seen = [x for x in coco.images.names if x not in coco.split.labels('test')]
    split = LabelSplit(coco.images.name, [], [], seen)
    drawn = {k: widest_episodes(coco.images, split, k, n=n, protocol='masked') for k in SHOTS}
    for row, method in name_choices(coco, space): add(row, coco, drawn, method)
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


# --- the paper's row, at its best ------------------------------------------------------------------------------------------------

SEEDS = (0, 1, 2)
PATIENCE = 6                           # checks without a better one: an arm has come to its end
ENOUGH = dict(scenes=4000, voc=2400)   # steps after which an arm is stopped all the same; its row says so
PLATEAU = 1200                         # the random start rises, rests and rises again: it is not stopped before
CHECKS = dict(scenes=30, voc=60)       # validation episodes of each number of shots at each check

def kept(key, make):
    "What `make` returns, kept under FSIC_HOME, so that a part that was cut is continued."
    path = home()/'rows'/f'{fingerprint(key, hash_code("fsic_nb.model", "fsic_nb.train"))}.json'
    if not path.exists(): write_json(path, make())
    return read_json(path)

def kinds_of(exp, shots, seed=0):
    "Training episodes of these shots as the refined model's recipe has them: five shots of all 16 labels need more images than a training task of the scenes has."
    return exp.episodes('train', shots, seed, **(dict(queries=2, ways=8) if shots>1 and exp.name=='scenes' else {}))

def begin(cfg, exp, seed=0):
    "A model as `train` begins it."
    torch.manual_seed(draw_seed(seed, 'weights'))
    return cfg.initial_model(exp, seed) or cfg.build()

class QueryLoss(PaperModel):
    "The paper's model without the cross-modality loss."
    def loss(self, support, query, y): return F.binary_cross_entropy_with_logits(self(support)(query), y.float())

def query_loss(cfg, exp, seed=0):
    "The same start, trained by the query loss alone."
    model = QueryLoss(cfg)
    model.load_state_dict(begin(cfg, exp, seed).state_dict())
    return model

class Residual(PaperModel):
    "The paper's model with a path on which the mean of the positives reaches the prototype; its weight begins at 1 and learns."
    def __init__(self, cfg):
        super().__init__(cfg)
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def prototypes(self, support):
        P, v, t = super().prototypes(support)
        return F.normalize(P, dim=-1)+self.weight.exp()*F.normalize(mean_prototypes(v, support.y), dim=-1), v, t

def residual(cfg, exp, seed=0):
    "The same start with a residual."
    model = Residual(cfg)
    model.load_state_dict(begin(cfg, exp, seed).state_dict(), strict=False)
    return model

MAKES = {'': begin, 'no L_cm': query_loss, 'residual': residual}

def follow(exp, a, seed=0):
    "Train one arm until validation at its shots has not risen for PATIENCE checks: its curve, and how it ended."
    began, every, k = time.perf_counter(), 20 if exp.name=='voc' and a['start']=='identity' else 100, a['shots']
    cfg = PaperConfig(exp.features.channels, exp.words.shape[1], prototype=a['prototype'], start=a['start'])
    model = MAKES[a.get('change', '')](cfg, exp, seed)
    opt = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], fused=True)
    eps, schedule, curve, losses = kinds_of(exp, k, seed), Schedule(lr=a['lr'], warmup=30), [], []
    for step in range(ENOUGH[exp.name]+1):
        if step%every==0:
            r = score_maps(exp, dict(map=model.eval(), mean=mean_in_space(model)), 'val', CHECKS[exp.name])
            point = {f'{what}{s}': round(float(100*v.mean()), 2) for what, each in r.items() for s, v in each.items()}
            curve.append(dict(step=step, **point, loss=round(float(np.mean(losses)), 4) if losses else None))
            losses, best = [], int(np.argmax([c[f'map{k}'] for c in curve]))
            say(f"{a} seed {seed} {curve[-1]}")
            if len(curve)-1-best>=PATIENCE and (a['start']=='identity' or step>=PLATEAU): break
        losses.append(train_step(model, opt, load_one(exp, [eps[step]]), schedule.at(step), seed, step))
    end = 'flat or falling' if len(curve)-1-best>=PATIENCE else 'the limit of steps'
    found = dict(**a, seed=seed, every=every, end=end, best_step=curve[best]['step'], best=curve[best][f'map{k}'], seconds=round(time.perf_counter()-began), curve=curve)
    say({what: found[what] for what in found if what!='curve'})
    return found

def arm(exp, a, seed=0): return kept(['arm', exp.name, exp.features.key, a, seed, PATIENCE, ENOUGH[exp.name], PLATEAU, CHECKS[exp.name]], lambda: follow(exp, a, seed))

def arms(data):
    "The grid of the paper's row: prototype, start, learning rate, shots of the training episodes."
    def grid(prototype, start, lrs, shots=SHOTS): return [dict(prototype=prototype, start=start, lr=lr, shots=k) for lr in lrs for k in shots]
    if data=='voc': return [*grid('wagp', 'identity', (1e-4, 3e-4, 1e-3)), *grid('cross', 'identity', (1e-4,)), *grid('cross', 'identity', (3e-4,), (1,)), *grid('wagp', 'random', (1e-3,), (5,))]
    return grid('cross', 'identity', (3e-4,), (5,))

# --- where is it lost? -------------------------------------------------------------------------------------------------------------

STAGES = ('mean of W_v f', 'mean of W_d f', 'layer norm', 'gate and convolution', 'value and output', 'attention', 'MLP', 'whole model')

def look(model, f, t):
    "What every image (n, L, C) is to every label after each piece of the prototype path, each label's word looking at each image alone: name -> (n, N, D)."
    it, N = model.interact, len(t)
    last, q, seen = it.word_attention, it.norm(t), {}
    for some in f.split(8):
        n, L = some.shape[:2]
        def every(x): return x[:, None].expand(-1, N, -1)
        def show(name, x): seen.setdefault(name, []).append(x)
        show('mean of W_v f', every(model.embed.visual(some.mean(1))))
        show('mean of W_d f', every(it.place(some).mean(1)))
        x = it.norm(it.place(some))
        show('layer norm', every(x.mean(1)))
        x = x.flatten(0, 1).expand(N, -1, -1)
        for name, part in getattr(it, 'parts', {}).items(): x = part(x, q if name=='gate' else part.write(t))
        x = x.unflatten(1, (n, L))
        if model.cfg.prototype=='cross': show('gate and convolution', x.mean(2).transpose(0, 1))
        show('value and output', last.attend.out(last.attend.value(x.mean(2))).transpose(0, 1))
        z = last.attend(q[:, None].expand(-1, n, -1), x, torch.ones(N, n, L, dtype=torch.bool))
        show('attention', z.transpose(0, 1))
        show('MLP', last.after(z+last.mlp(last.before(z))).transpose(0, 1))
    return {name: torch.cat(x) for name, x in seen.items()}

@torch.no_grad()
def along(model, support, query):
    "AP of each label when the prototypes are taken after each piece of the path: name -> (with the paper's query, with a query that took the same path), scores (Q, N)."
    y, t, f = support.y[0], model.embed.word(support.g)[0], query.locals[0]
    mine, theirs, vq = look(model, support.x.locals[0], t), look(model, f, t), model.embed.visual(f.mean(1))
    P = {name: (u*y[..., None]).sum(0)/y.sum(0)[:, None] for name, u in mine.items()}
    P['whole model'], theirs['whole model'] = model.prototypes(support)[0][0], theirs['MLP']
    return {name: (score(vq, p), F.cosine_similarity(theirs[name], p, dim=-1)) for name, p in P.items()}

SWAPS = ('nothing', 'W_v in place of W_d', 'no layer norm of local features', 'even attention', 'no value and output', 'no MLP', 'no gate, no convolution', 'no selection', 'even weights of the images', 'all of these')

def fits(model, what):
    "Does the model have this piece?"
    return what not in (('even weights of the images',) if model.cfg.prototype=='cross' else ('no gate, no convolution', 'no selection'))

def swapped(model, what):
    "The same model with one piece of its prototype path made neutral."
    model = deepcopy(model)
    it, every = model.interact, what=='all of these'
    last, D = it.word_attention, model.cfg.dim
    with torch.no_grad():
        if every or what=='W_v in place of W_d': it.place[0].load_state_dict(model.embed.visual.state_dict())
        if every or what=='even attention': [p.zero_() for p in last.attend.query.parameters()]
        if every or what=='no value and output':
            for layer in (last.attend.value, last.attend.out): copy_layer(layer, torch.eye(D), torch.zeros(D))
        if every or what=='no MLP': [p.zero_() for p in last.mlp[3].parameters()]
    if every or what=='no layer norm of local features': it.norm = Lengths()
    if hasattr(it, 'parts') and (every or what=='no gate, no convolution'): model.cfg, it.parts = replace(model.cfg, parts=(), lcm='none'), torch.nn.ModuleDict()
    if model.cfg.prototype=='cross' and what=='no selection': model.cfg = replace(model.cfg, lcm='none')
    if model.cfg.prototype=='wagp' and (every or what=='even weights of the images'): it.forward = lambda x, y, v, t: WAGP.forward(it, x, y, torch.ones_like(v), t)
    return model

class Lengths(torch.nn.Module):
    "All local features at the length that a layer norm gives them, nothing else."
    def forward(self, x): return F.normalize(x, dim=-1)*x.shape[-1]**.5

@torch.no_grad()
def scored(exp, ask, k, n):
    "mAP of validation episodes in percent: `ask` gives (support, query) -> {name: scores}; returns name -> (n,)."
    eps, out = exp.episodes('val', k), {}
    for e in range(n):
        support, query, y = load_one(exp, [eps[e]])
        for name, s in ask(support, query).items(): out.setdefault(name, []).append(100*np.nanmean(average_precision(s.mT.contiguous(), y[0].mT.contiguous())))
    return {name: np.array(v) for name, v in out.items()}

def trained(exp, method, k, seed):
    "The model of a row that answers at k shots: `paper-best` has one for each, `wagp-best` is WAGP trained in the same way."
    if not method.endswith('best'): return train_as(exp, method, seed=seed)
    best = f'paper-best-{k}'
    return train_as(exp, best, seed=seed, cfg=replace(make_plan(best, exp, say=quiet).cfg, prototype=method.split('-')[0].replace('paper', 'cross')))

def questions(exp, method, k, seed):
    "Everything that is asked of one trained model: (support, query) -> name -> scores."
    model = trained(exp, method, k, seed)
    some = {('model',): model, ('mean in its space',): mean_in_space(model), ('words alone',): words_only(model), ('ML-SimpleShot',): simpleshot(exp.centre)}
    if method.endswith('best'): some |= {('untrained',): begin(model.cfg, exp, seed).eval()}
    if method.endswith('best') and (exp.name=='voc' or not seed): some |= {('swap', what): swapped(model, what) for what in SWAPS if fits(model, what)}
    def ask(support, query):
        found = {name: m(support)(query)[0] for name, m in some.items()}
        for name, (theirs, same) in along(model, support, query).items(): found |= {('path', name, 'v'): theirs, ('path', name, 'same'): same}
        return found
    return ask

def where(exp, n):
    "What is lost along the path of each row, three seeds: mAP with the interval over episodes of their mean, and that of each seed."
    rows = []
    for method in ('paper-best', 'wagp-best', 'paper'):
        seeds = SEEDS if exp.name=='voc' or method=='paper-best' else SEEDS[:1]
        found = {(k, seed): scored(exp, questions(exp, method, k, seed), k, n) for k in SHOTS for seed in seeds}
        for name in found[1, 0]:
            row = dict(method=method, what=name[0], piece=name[1] if len(name)>1 else '', query=name[2] if len(name)>2 else '')
            per = {k: np.stack([found[k, s][name] for s in seeds if name in found[k, s]]) for k in SHOTS}        # (seeds, episodes)
            for k, v in per.items():
                m, ci = interval(v.mean(0))
                row |= {f'map{k}': round(m, 2), f'ci{k}': round(ci, 2), f'seeds{k}': [round(float(x), 2) for x in v.mean(1)]}
            gain = per[5].mean(1)-per[1].mean(1)
            rows.append(dict(**row, gain=round(float(gain.mean()), 2), gains=[round(float(x), 2) for x in gain]))
        say([r for r in rows if r['method']==method and r['what']!='path'])
    return rows

def repeated(exp, n):
    "The chosen configuration with three training seeds, paired to ML-SimpleShot; the mean in its space."
    models = {seed: {k: trained(exp, 'paper-best', k, seed) for k in SHOTS} for seed in SEEDS}
    methods = {('paper-best', s): by_shots(m) for s, m in models.items()} | {('mean in its space', s): by_shots({k: mean_in_space(x) for k, x in m.items()}) for s, m in models.items()}
    r = score_maps(exp, {**methods, ('simpleshot', 0): simpleshot(exp.centre)}, 'val', n)
    return [dict(method=name, seed=s, **summary(v, r['simpleshot', 0])) for (name, s), v in r.items()]

def row(exp, n):
    "Everything about the paper's row on one kind of data, on validation labels."
    grid = [arm(exp, a) for a in arms(exp.name)]
    chosen = {k: make_plan(f'paper-best-{k}', exp, say=quiet) for k in SHOTS}
    best = [dict(shots=k, prototype=p.cfg.prototype, start=p.cfg.start, lr=p.schedule.lr, steps=p.schedule.steps) for k, p in chosen.items()]
    # without the cross-modality loss and with a residual, three seeds: on photographs, where a training is short
    changes = [dict(prototype='wagp', start='identity', lr=3e-4, shots=5, **change) for change in ({}, dict(change='no L_cm'), dict(change='residual'))] if exp.name=='voc' else []
    curves = [arm(exp, a, seed) for a in changes for seed in SEEDS]
    return dict(data=exp.name, part='val', episodes=dict(curves=CHECKS[exp.name], seeds=60, where=n), grid=grid, best=best, seeds=repeated(exp, 60), curves=curves, where=where(exp, n))

def exchanged(model, what):
    "The same model shown another label's images, or told another label's word."
    def method(s):
        if what=='images': s = Support(Features(s.x.locals.flip(-3)), s.y, s.g)
        if what=='words': s = Support(s.x, s.y, s.g.roll(1, -2))
        return model(s)
    return method

def collapse(exp, n):
    "Exchanged images and words, on the scenes."
    best = {k: train_as(exp, f'paper-best-{k}') for k in SHOTS}
    methods = dict(simpleshot=simpleshot(exp.centre), wagp=train_as(exp, 'wagp'), paper=train_as(exp, 'paper'), refined=train_as(exp, 'refined'))
    methods['paper-best'] = by_shots(best)
    probe = score_maps(exp, {(m, what): exchanged(f, what) for m, f in methods.items() for what in ('nothing', 'images', 'words')}, 'val', n)
    probe = [dict(method=m, exchanged=what, **summary(r)) for (m, what), r in probe.items()]
    say(probe)
    return dict(part='val', episodes=n, seed=0, probe=probe)


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


def fill_chance(data, root):
    "Write the chance level into records that were measured before it was kept; it is a function of the episodes alone."
    images, split, scenes, protocol = read_images(data, root)
    options = Options(few='drop') if split.name=='coco' else Options()
    exp = Experiment(data, images, split, None, None, scenes, protocol, options=options)
    for path in sorted(results_folder.glob(f'*_{data}*.json')):
        if path.name.split('_')[0] not in ('demo', 'results'): continue
        rows, found = read_json(path), {}
        for row in rows:
            k = row['shots']
            if k not in found:
                eps = draw_test(exp, k, row['episodes'], row['seed'], lambda line: None)
                assert eps.split.fingerprint()==row['split_hash'], f'{path}: other episodes'
                asked = [eps[e] for e in range(row['episodes'])]
                levels = [chance_level(e.y_query.sum(0), len(e.query)).nanmean().item() for e in asked]
                found[k] = round(100*float(np.mean(levels)), 3)
            row['chance'] = found[k]
        write_json(path, rows)
        say(f'{path.name}: '+', '.join(f'{k}-shot {v:.1f}' for k, v in found.items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=['results', 'tuning', 'ablation', 'probes', 'parts', 'labels', 'row', 'collapse', 'places', 'gallery', 'chance'])
    parser.add_argument('--data', choices=['scenes', 'voc', 'coco'], default='scenes', help='coco: chance only')
    parser.add_argument('--root', help="the data set's folder")
    parser.add_argument('--coco', help="probes: the folder of COCO's photographs, for the choices of the name")
    parser.add_argument('--episodes', type=int, help='default: 200 for results, 60 for the rest')
    parser.add_argument('--steps', type=int, default=200, help='training steps of each ablated model; ablation on voc: 0 takes them as they begin')
    parser.add_argument('--backbone', default='', help='network (default: lite0 for scenes, lite2 for photographs)')
    parser.add_argument('--size', type=int, help='pixels of a side (default: 224 for scenes, 336 for photographs)')
    a = parser.parse_args()
    keep_freed_memory()
    if a.what=='chance': return fill_chance(a.data, a.root)
    if a.what=='probes' and a.data!='voc': parser.error('probes is measured on voc')
    if a.data!='scenes' and a.what not in ('results', 'tuning', 'ablation', 'probes', 'row'): parser.error(f'{a.what} is measured on scenes')
    network = dict(backbone=a.backbone, size=a.size)
    exp = prepare(a.data, a.root, **network)
    if a.what=='gallery': return gallery(exp)
    n = a.episodes or dict(results=200, places=40, row=8 if a.data=='scenes' else 30, collapse=20).get(a.what, 60)
    made = dict(results=results, probes=lambda exp, n: probe_rows(exp, n, prepare('coco', a.coco, **network) if a.coco else None), parts=parts, labels=labels, places=places, row=row, collapse=collapse).get(a.what)
    rows = dict(ablation=ablation, tuning=tuning)[a.what](exp, n, a.steps) if made is None else made(exp, n)
    name = f'{a.what}_{a.data}' if a.what in ('results', 'tuning', 'ablation', 'row') else a.what
    if a.what=='results' and a.backbone: name += f'_{a.backbone}'  # beside those of the data set's own network
    write_json(results_folder/f'{name}.json', rows)
    say(f'data/results/{name}.json written')


if __name__=='__main__': main()
