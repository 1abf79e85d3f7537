"""Train the packaged network and WAGP end to end on photographs, at a small size: writes
data/results/tuned.json, which 21b_finetune shows.

    python tools/tuning.py --root DIR --run RUN [--steps 2000] [--size 128]

DIR holds PASCAL VOC, RUN is the folder of the training; one that was cut is continued. Episodes of
one and of five support images a label take turns. Every score is one of validation labels; test
labels are not looked at.
"""
import argparse, json, os, time
from dataclasses import asdict, replace
from pathlib import Path

os.environ.setdefault('FSIC_PROGRESS', '0')
import numpy as np
import torch
from fsic_nb.backbones import build_network
from fsic_nb.core import draw_seed, read_json, say, write_json
from fsic_nb.evaluate import evaluate, records
from fsic_nb.experiment import Experiment, read_images
from fsic_nb.finetune import (CENTRE_IMAGES, FineTunedConfig, ImageLoader, Live, Tuning, finetune,
                              live_methods, make_live_validation)
from fsic_nb.model import PaperConfig
from fsic_nb.protocols import QUERIES, SHOTS
from fsic_nb.runs import read_tensors
from fsic_nb.train import Plan, Schedule
from fsic_nb.words import label_vectors, load_words

OUT = Path(__file__).resolve().parents[1]/'data'/'results'/'tuned.json'
KINDS = ((1, 4), (5, 2))     # shots and queries a label; five and four would need nine photographs
SEED = 0
EPISODES = 40                # of each number of shots, at a milestone
LAST_EPISODES = 100          # the same, before and after training
BLOCK = 50                   # steps whose losses are averaged
HOW = Tuning(max_images=64, augment=True)


def prepare_live(root):
    "VOC, strict filter, our split, without any stored feature."
    images, split, _, protocol = read_images('voc', root, say=say)
    words = torch.as_tensor(label_vectors(load_words('glove-50'), images.names))
    return Experiment('voc', images, split, None, words, None, protocol)


def make_plan(exp, size, steps):
    "The packaged network under WAGP, both numbers of shots in turn."
    cfg = FineTunedConfig('lite0', PaperConfig(1280, exp.words.shape[1], prototype='wagp'), size)
    kinds = [exp.episodes('train', k, SEED, queries=q) for k, q in KINDS]
    return Plan(cfg, kinds, Schedule(steps=steps, lr=1e-4, warmup=50, every=max(1, steps//20)))


def train(plan, exp, loader, run):
    "Train, and add the seconds to those of earlier calls."
    start = time.perf_counter()
    clock = run/'seconds.json'
    before = read_json(clock) if clock.exists() else 0
    validate = make_live_validation(exp, loader, SEED, HOW.max_images, EPISODES)
    try: finetune(plan, exp.words, run, SEED, validate, HOW)
    finally: write_json(clock, round(before+time.perf_counter()-start, 1))
    return read_json(clock)


def ends(plan, run):
    "The model before its training, and after the last step."
    torch.manual_seed(draw_seed(SEED, 'weights'))
    before = plan.cfg.start()
    after = plan.cfg.build()
    after.load_state_dict(read_tensors(run/'last'/'weights.safetensors'))
    return dict(before=before.eval(), after=after.eval())


def score(model, exp, loader):
    "Records with intervals on more validation episodes."
    live = replace(exp, features=Live(model.backbone, loader, HOW.max_images))
    rows = []
    for k in SHOTS:
        eps = exp.episodes('val', k, SEED)
        rows += records(evaluate(live_methods(model, live.centre), eps, live, LAST_EPISODES), eps)
    keys = 'method shots episodes map map_ci95 diff diff_ci95'.split()
    return [{k: r[k] for k in keys} for r in rows]


def read_log(run):
    "Mean losses of blocks of steps, and one row a validation."
    log = [json.loads(l) for l in (run/'log.jsonl').read_text(encoding='utf-8').splitlines()]
    losses = [r['loss'] for r in log if 'loss' in r]
    blocks = [losses[i:i+BLOCK] for i in range(0, len(losses), BLOCK)]
    curve = [dict(step=i*BLOCK+len(b), loss=round(float(np.mean(b)), 4))
             for i, b in enumerate(blocks)]
    return curve, [dict(r, step=r['step']+1) for r in log if 'val' in r]


def describe(plan, exp):
    "All that shaped the run."
    episodes = [dict(shots=e.shots, queries=e.queries, labels=e.pools[0].names,
                     images=len(e[0].support)+len(e[0].query)) for e in plan.kinds]
    return dict(data=exp.name, split=exp.split.name, protocol=exp.protocol,
                train_labels=exp.split.labels('train'), train_images=len(exp.training),
                val_labels=exp.split.labels('val'), config=plan.cfg.to_dict(),
                schedule=asdict(plan.schedule), augment=HOW.augment, seed=SEED,
                precision=HOW.precision, threads=torch.get_num_threads(), training=episodes,
                validation=dict(part='val', shots=list(SHOTS), queries=QUERIES, episodes=EPISODES,
                                seed=SEED, centre_images=min(len(exp.training), CENTRE_IMAGES)))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', required=True, help="VOC's folder")
    parser.add_argument('--run', required=True, type=Path, help='folder of the training')
    parser.add_argument('--steps', type=int, default=2000, help='of one episode each')
    parser.add_argument('--size', type=int, default=128, help='pixels of a side')
    parser.add_argument('--out', type=Path, default=OUT)
    a = parser.parse_args()
    exp = prepare_live(a.root)
    plan = make_plan(exp, a.size, a.steps)
    loader = ImageLoader(exp.images, build_network(plan.cfg.backbone, False, a.size)[1])
    seconds = train(plan, exp, loader, a.run)
    curve, rows = read_log(a.run)
    last = {when: score(m, exp, loader) for when, m in ends(plan, a.run).items()}
    write_json(a.out, dict(describe(plan, exp), steps=a.steps, seconds=round(seconds),
                           loss_block=BLOCK, loss=curve, rows=rows, **last))
    say(f'{a.out.name} written')


if __name__=='__main__': main()
