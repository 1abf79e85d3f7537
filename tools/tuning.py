"""Train the packaged network and WAGP end to end on photographs, at a small size: writes
data/results/tuned.json, which 21b_finetune shows.

    python tools/tuning.py --root DIR --run RUN [--steps 4000] [--size 128]
    python tools/tuning.py --root DIR --run RUN --report      what there is of a run that was cut

DIR holds PASCAL VOC, RUN is the folder of the training; one that was cut is continued. Episodes of
one and of five support images a label take turns. The same head is trained on the frozen network,
too. Every score is one of validation labels; test labels are not looked at.

    python tools/tuning.py --root DIR --run RUN --paper --minutes 6 [--precision bf16]

Our reconstruction of the paper's method as the head, its episodes and schedule instead, 224 pixels a side, as far as the minutes allow:
data/results/tuned_paper.json. The best weights of the validation labels are scored once on the test labels.
"""
import argparse, contextlib, json, os, signal, time
from dataclasses import asdict, replace
from pathlib import Path

os.environ.setdefault('FSIC_PROGRESS', '0')
import numpy as np
import torch
from fsic_nb.backbones import build_network, load_backbone
from fsic_nb.core import draw_seed, say
from fsic_nb.files import read_json, write_json
from fsic_nb.evaluate import evaluate, records
from fsic_nb.experiment import Experiment, read_images
from fsic_nb.features import extract
from fsic_nb.finetune import (CENTRE_IMAGES, FineTunedConfig, ImageLoader, Live, Tuning, finetune,
                              live_methods, make_live_validation)
from fsic_nb.model import PaperConfig, mean_in_space
from fsic_nb.protocols import QUERIES, SHOTS
from fsic_nb.runs import read_tensors
from fsic_nb.support import simpleshot
from fsic_nb.train import PAPER_SCHEDULE, Plan, Schedule, train, validator
from fsic_nb.words import label_vectors, load_words

OUT = Path(__file__).resolve().parents[1]/'data'/'results'/'tuned.json'
KINDS = ((1, 4), (5, 2))     # shots and queries a label; two labels have no more than seven images
SEED = 0
EPISODES = 40                # of each number of shots, at a milestone
LAST_EPISODES = 100          # the same, before and after training
BLOCK = 50                   # steps whose losses are averaged
HOW = Tuning(max_images=64, augment=True)


def prepare_images(root):
    "VOC, strict filter, our split, without any stored feature."
    images, split, _, protocol = read_images('voc', root, say=say)
    words = torch.as_tensor(label_vectors(load_words('glove-50'), images.names))
    return Experiment('voc', images, split, None, words, None, protocol)


def make_plan(exp, size, steps):
    "The packaged network under WAGP, both numbers of shots in turn."
    cfg = FineTunedConfig('lite0', PaperConfig(1280, exp.words.shape[1], prototype='wagp'), size)
    kinds = [exp.episodes('train', k, SEED, queries=q) for k, q in KINDS]
    return Plan(cfg, kinds, Schedule(steps=steps, lr=1e-4, warmup=50, every=max(1, steps//20)))


def make_paper_plan(exp, every):
    "The packaged network under our reconstruction of the paper's method, on the schedule of its code."
    cfg = FineTunedConfig('lite0', PaperConfig(1280, exp.words.shape[1]), 224)
    kinds = [exp.episodes('train', 1, SEED, queries=4)]
    return Plan(cfg, kinds, replace(PAPER_SCHEDULE, every=every))


def tune(plan, exp, loader, run, how):
    "Train network and head, and add the seconds to those of earlier calls."
    start = time.perf_counter()
    clock = run/'seconds.json'
    before = read_json(clock) if clock.exists() else 0
    validate = make_live_validation(exp, loader, SEED, how.max_images, EPISODES)
    try: finetune(plan, exp.words, run, SEED, validate, how)
    finally: write_json(clock, round(before+time.perf_counter()-start, 1))


class OutOfTime(Exception): "The minutes are over."

@contextlib.contextmanager
def time_limit(minutes):
    "Cut the work in the block after some minutes; what was saved stays."
    def stop(*_): raise OutOfTime
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(round(60*minutes))
    try: yield
    except OutOfTime: say(f'cut after {minutes:g} minutes')
    finally: signal.alarm(0)


def stored_methods(head, exp):
    "As `live_methods`, on stored features."
    return {'head': head, 'simpleshot': simpleshot(exp.centre), 'paper-mean': mean_in_space(head)}


def train_frozen(plan, exp, run):
    "Train the head alone, on the same episodes without augmentation, with the same validation."
    judges = {k: validator([exp.episodes('val', k, SEED, queries=QUERIES)], exp, EPISODES)
              for k in SHOTS}
    def validate(head):
        scores = {f'{name}-{k}': judge(method) for name, method in stored_methods(head, exp).items()
                  for k, judge in judges.items()}
        return dict(val=float(np.mean([scores[f'head-{k}'] for k in SHOTS])), **scores)
    train(replace(plan, cfg=plan.cfg.head), exp, run, SEED, validate)


def first(cfg):
    "The model before its training."
    torch.manual_seed(draw_seed(SEED, 'weights'))
    return cfg.start().eval()


def last(cfg, run):
    "The model after the last step that was saved."
    model = cfg.build()
    model.load_state_dict(read_tensors(run/'last'/'weights.safetensors'))
    return model.eval()


def score(methods, exp, part='val', n=LAST_EPISODES):
    "Records with intervals on more episodes."
    rows = []
    for k in SHOTS:
        eps = exp.episodes(part, k, SEED)
        rows += records(evaluate(methods, eps, exp, n), eps)
    keys = 'method shots episodes map map_ci95 diff diff_ci95'.split()
    return [{k: r[k] for k in keys} for r in rows]


def score_live(model, exp, loader, *which):
    "The same, with the features that the model's network has."
    live = replace(exp, features=Live(model.backbone, loader, HOW.max_images))
    return score(live_methods(model, live.centre), live, *which)


def read_log(run):
    "Steps, mean losses of blocks of steps, and one row a validation, up to what was saved."
    done = read_json(run/'last'/'state.json')['step']
    log = [json.loads(l) for l in (run/'log.jsonl').read_text(encoding='utf-8').splitlines()]
    log = [r for r in log if r['step']<done]
    losses = [r['loss'] for r in log if 'loss' in r]
    blocks = [losses[i:i+BLOCK] for i in range(0, len(losses), BLOCK)]
    curve = [dict(step=i*BLOCK+len(b), loss=round(float(np.mean(b)), 4))
             for i, b in enumerate(blocks)]
    rows = [{**r, 'step': r['step']+1} for r in log if 'val' in r]
    return dict(steps=done, loss_block=BLOCK, loss=curve, rows=rows)


def describe(plan, exp, how):
    "All that shaped the run."
    episodes = [dict(shots=e.shots, queries=e.queries, labels=e.pools[0].names,
                     images=len(e[0].support)+len(e[0].query)) for e in plan.kinds]
    return dict(data=exp.name, split=exp.split.name, protocol=exp.protocol,
                train_labels=exp.split.labels('train'), train_images=len(exp.training),
                val_labels=exp.split.labels('val'), config=plan.cfg.to_dict(),
                schedule=asdict(plan.schedule), augment=how.augment, seed=SEED,
                precision=how.precision, training=episodes, last_episodes=LAST_EPISODES,
                validation=dict(part='val', shots=list(SHOTS), queries=QUERIES, episodes=EPISODES,
                                seed=SEED, centre_images=min(len(exp.training), CENTRE_IMAGES)))


def run_paper(a):
    "Train as the paper does for as long as there is time, and look once at the test labels."
    exp = prepare_images(a.root)
    plan = make_paper_plan(exp, a.every)
    loader = ImageLoader(exp.images, build_network('lite0', False, 224)[1], workers=os.cpu_count())
    how = Tuning(max_images=64, precision=a.precision, workers=os.cpu_count())
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if not a.report:
        with time_limit(a.minutes): tune(plan, exp, loader, a.run, how)
    out = dict(describe(plan, exp, how), seconds=read_json(a.run/'seconds.json'), photos=a.photos,
               device=torch.cuda.get_device_name() if device=='cuda' else 'CPU', **read_log(a.run))
    best = plan.cfg.build()
    best.load_state_dict(read_tensors(a.run/'best'/'weights.safetensors'))
    models = dict(before=first(plan.cfg), after=last(plan.cfg, a.run), best=best.eval())
    for name, model in models.items():
        out[name] = score_live(model.to(device), exp, loader)
        if name!='after': out[f'{name}_test'] = score_live(model, exp, loader, 'test', 200)
        write_json(a.out, out)
    say(f'{a.out.name} written')


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', required=True, help="VOC's folder")
    parser.add_argument('--run', required=True, type=Path, help='folder of the training')
    parser.add_argument('--steps', type=int, default=4000, help='of one episode each')
    parser.add_argument('--size', type=int, default=128, help='pixels of a side')
    parser.add_argument('--report', action='store_true', help='train no further')
    parser.add_argument('--paper', action='store_true', help="the paper's head, episodes and schedule")
    parser.add_argument('--minutes', type=float, default=60, help='of training, with --paper')
    parser.add_argument('--every', type=int, default=250, help='with --paper: steps from one validation to the next')
    parser.add_argument('--precision', default='fp32', help='with --paper: fp32, bf16')
    parser.add_argument('--photos', default='as they are', help='with --paper: what was done to the photos')
    parser.add_argument('--out', type=Path)
    a = parser.parse_args()
    a.out = a.out or (OUT.with_name('tuned_paper.json') if a.paper else OUT)
    if a.paper: return run_paper(a)
    exp = prepare_images(a.root)
    plan = make_plan(exp, a.size, a.steps)
    loader = ImageLoader(exp.images, build_network(plan.cfg.backbone, False, a.size)[1])
    if not a.report: tune(plan, exp, loader, a.run, HOW)
    out = dict(describe(plan, exp, HOW), seconds=read_json(a.run/'seconds.json'), **read_log(a.run))
    out.update(before=score_live(first(plan.cfg), exp, loader),
               after=score_live(last(plan.cfg, a.run), exp, loader))
    store = extract(exp.images, load_backbone(plan.cfg.backbone, size=a.size))
    frozen = a.run/'frozen'
    plan = replace(plan, schedule=replace(plan.schedule, steps=out['steps']))
    stored = replace(exp, features=store)
    train_frozen(plan, stored, frozen)
    out['frozen'] = dict(read_log(frozen), after=score(
        stored_methods(last(plan.cfg.head, frozen), stored), stored))
    write_json(a.out, out)
    say(f'{a.out.name} written')


if __name__=='__main__': main()
