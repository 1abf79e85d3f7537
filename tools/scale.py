"""What more workers, more episodes and more images cost: data/results/scale.json, which nbs/44_scale reads.

    python tools/scale.py engines    the same 10,000 episodes by every engine that runs here, byte for byte
    python tools/scale.py growth     images, episodes and workers: rates, bytes and seconds
    python tools/scale.py gpu        where there is one: episodes by one process and by several, images against decoding

Workers have one thread each and are started before the clock, since a cluster is started once: the seconds are those of the
work. The scenes come with the packages; the photos of `growth` are made up, like those of fsic_bench.
"""
import argparse, contextlib, hashlib, os, subprocess, sys, tempfile, time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

os.environ.update(FSIC_PROGRESS='0', OMP_NUM_THREADS='1', MKL_NUM_THREADS='1')
import numpy as np
import torch
from fsic_nb import bench
from fsic_nb.backbones import load_backbone
from fsic_nb.cache import Cache
from fsic_nb.core import say
from fsic_nb.evaluate import evaluate, score_episodes
from fsic_nb.experiment import prepare
from fsic_nb.files import read_json, write_json
from fsic_nb.features import FeatureStore, extract
from fsic_nb.protocols import Options
from fsic_nb.recipes import fit
from fsic_nb.spread import evaluate_on, make_spec
from fsic_nb.studies import Comparison

target = Path(__file__).resolve().parents[1]/'data'/'results'/'scale.json'


# --- engines ------------------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def pool(n):
    "Worker processes of Python's own pool."
    with ProcessPoolExecutor(n, mp_context=get_context('spawn')) as executor: yield executor

@contextlib.contextmanager
def dask(n):
    "A scheduler and n workers, each a process of its own that listens on the loopback address."
    from distributed import Client
    with tempfile.TemporaryDirectory() as d:
        here = dict(cwd=d, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        def start(*words): return subprocess.Popen([sys.executable, '-m', 'distributed.cli.'+words[0], *words[1:]], **here)
        scheduler = start('dask_scheduler', '--host', '127.0.0.1', '--port', '0', '--no-dashboard', '--scheduler-file', f'{d}/s.json')
        while not Path(d, 's.json').exists(): time.sleep(.1)
        workers = [start('dask_worker', '--scheduler-file', f'{d}/s.json', '--host', '127.0.0.1', '--nthreads', '1', '--no-dashboard') for _ in range(n)]
        try:
            with Client(scheduler_file=f'{d}/s.json') as client:
                client.wait_for_workers(n)
                yield client.get_executor()
        finally:
            for p in (*workers, scheduler): p.terminate()
            for p in (*workers, scheduler): p.wait()

@contextlib.contextmanager
def submitit_local(n):
    "Jobs of submitit on this computer; every job is a process, so the clock counts its start."
    import submitit
    with tempfile.TemporaryDirectory() as d:
        executor = submitit.AutoExecutor(folder=d, cluster='local')
        executor.update_parameters(timeout_min=60)
        yield executor

ENGINES = {'process pool, 1 worker': (pool, 1), 'process pool, 2 workers': (pool, 2), 'Dask cluster, 2 workers': (dask, 2),
           'submitit, 2 jobs': (submitit_local, 2)}

def digest(parts)->str:
    "Hash every number of every episode."
    h = hashlib.sha256()
    for p in parts:
        for name, r in p.results.items():
            for k in sorted(set(r)-{'seconds'}): h.update(f'{name} {k} {r[k].shape}'.encode()+r[k].tobytes())
    return h.hexdigest()[:16]

def timed(engine, n, spec, episodes, shard, out)->tuple: # seconds, hash
    "Score episodes by an engine whose workers are awake, if it keeps them."
    with engine(n) as executor:
        if engine is not submitit_local: evaluate_on(executor, spec, 8*n, 4, out/'awake')
        start = time.perf_counter()
        parts = evaluate_on(executor, spec, episodes, shard, out/'work')
        return time.perf_counter()-start, digest(parts)

def engines(args)->dict:
    "The same episodes by every engine."
    how = Comparison([1], args.episodes, quick=args.quick)
    rows = []
    for method in ('simpleshot', 'refined'):
        spec = make_spec([], [method], how=how)
        for name, (engine, n) in ENGINES.items():
            with tempfile.TemporaryDirectory() as d:
                # submitit's jobs are started anew, so it gets as few as there are workers
                shard = -(-args.episodes//n) if engine is submitit_local else 250
                seconds, found = timed(engine, n, spec, args.episodes, min(shard, args.episodes), Path(d))
            rows.append(dict(method=method, engine=name, workers=n, episodes=args.episodes, seconds=round(seconds, 1),
                             rate=round(args.episodes/seconds), hash=found))
            say(' '.join(f'{k} {v}' for k, v in rows[-1].items()))
    return dict(engines=rows)


# --- growth -------------------------------------------------------------------------------------------------------------

def growth(args)->dict:
    "Rates over episodes, images and workers; seconds to open a store."
    out = dict(episodes=[], images=[], open=[])
    spec = make_spec([], ['refined'], how=Comparison([1], 2000, quick=args.quick))
    for workers in (1, 2):
        for n in (200, 500, 1000, 2000)[:2 if args.quick else 4]:
            with tempfile.TemporaryDirectory() as d: seconds, _ = timed(pool, workers, spec, n, max(25, n//16), Path(d))
            out['episodes'].append(dict(workers=workers, size=n, seconds=round(seconds, 2), rate=round(n/seconds)))
            say(out['episodes'][-1])
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        for workers in (1, 2):
            for n in (128, 256, 512, 1024)[:1 if args.quick else 4]:
                paths = bench.write_jpegs(d/'jpegs', n)
                with pool(workers) as executor:
                    extract(paths[:2*workers], root=d/f'awake{workers}{n}', precision='fp32', shard=1, executor=executor)
                    start = time.perf_counter()
                    extract(paths, root=d/f'{workers}-{n}', precision='fp32', shard=32, executor=executor)
                    seconds = time.perf_counter()-start
                out['images'].append(dict(workers=workers, size=n, seconds=round(seconds, 2), rate=round(n/seconds, 1)))
                say(out['images'][-1])
        for n in (1_000, 10_000, 100_000, 1_000_000)[:2 if args.quick else 4]:
            y = bench.make_labels(n, 80, .01)
            bench.write_store(d/f's{n}', y, (7, 7), 1280, only=[0])
            start = time.perf_counter()
            store = FeatureStore(d/f's{n}')
            opened = time.perf_counter()-start
            start = time.perf_counter()
            store[np.arange(0, n, n//80)]
            out['open'].append(dict(size=n, open_s=round(opened, 4), read_80_s=round(time.perf_counter()-start, 4)))
            say(out['open'][-1])
    return out


# --- one GPU ------------------------------------------------------------------------------------------------------------

def gpu_episodes(quick)->dict:
    "Refined prototypes on the full scenes, metrics in: episodes a second by one process, over the size of a batch."
    exp = prepare('scenes', quick=quick, device='cuda')
    refined = fit('refined', exp)
    eps, methods = exp.episodes('test', 1), {'refined': refined}
    rows = []
    for batch in (18, 75, 150, 300, 600):
        cache = Cache(exp)
        score_episodes(methods, eps, exp, range(600), batch, cache)       # every image is encoded now
        s = bench.seconds(lambda: score_episodes(methods, eps, exp, range(600, 3600), batch, cache))
        rows.append(dict(workers=1, batch=batch, episodes=3000, rate=round(3000/s)))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as p:
        score_episodes(methods, eps, exp, range(600), 150, cache)
    busy = sum(e.self_device_time_total for e in p.key_averages())/600e3
    on_gpu = evaluate(methods, eps, exp, 60)['refined']['map']
    on_cpu = evaluate({'refined': refined.cpu()}, eps, prepare('scenes', quick=quick), 60)['refined']['map']
    return dict(batches=rows, busy_ms=round(busy, 3), difference=float(np.abs(on_gpu-on_cpu).max()))

def gpu_workers(quick)->list:
    "The same in shards by several processes that share the GPU; they are awake, and have encoded every image."
    spec = make_spec([], ['refined'], how=Comparison([1], 24_000, quick=quick, options=Options(device='cuda')))
    rows = []
    for workers in (1, 4, 8):
        n = 3000*workers
        with tempfile.TemporaryDirectory() as d, pool(workers) as executor:
            evaluate_on(executor, spec, 600*workers, 300, Path(d, 'awake'))
            s = bench.seconds(lambda: evaluate_on(executor, spec, n, 750, Path(d, 'work')))
        rows.append(dict(workers=workers, episodes=n, rate=round(n/s)))
    return rows

def gpu_images(n=4096)->dict:
    "Images a second: extraction, and its two halves alone."
    bb = load_backbone('lite0', device='cuda')
    out = {}
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        paths = bench.write_jpegs(d/'jpegs', n)
        for precision in ('fp32', 'bf16'):
            extract(paths[:256], bb, precision, root=d/f'awake{precision}')
            out[f'extraction, {precision}'] = n/bench.seconds(lambda: extract(paths, bb, precision, root=d/precision))
        for threads in (1, 4, 16):
            some = paths[:256*min(threads, 4)]
            with ThreadPoolExecutor(threads) as executor:
                x = []
                out[f'decoding, {threads} threads'] = len(some)/bench.seconds(lambda: x.extend(executor.map(bb.transform, some)))
        x = torch.stack(x[:256])
        for precision in ('fp32', 'bf16'):
            bb(x, precision)
            out[f'forward pass, {precision}'] = 4*len(x)/bench.seconds(lambda: [bb(x, precision) for _ in range(4)])
    return {k: round(v, 1) for k, v in out.items()}

def gpu(args)->dict:
    "What one GPU does."
    if not torch.cuda.is_available(): sys.exit('there is no GPU here')
    found = dict(machine=bench.machine(bench.Bench(Path('.'), device='cuda')), **gpu_episodes(args.quick),
                 workers=gpu_workers(args.quick), images=gpu_images())
    say(found)
    return dict(gpu=found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=('engines', 'growth', 'gpu'))
    parser.add_argument('--episodes', type=int, default=10_000)
    parser.add_argument('--quick', action='store_true', help='the small scenes, small sizes: does it run?')
    parser.add_argument('--out', type=Path, default=target)
    args = parser.parse_args()
    found = globals()[args.what](args)
    old = read_json(args.out) if args.out.exists() else {}
    machine = {} if args.what=='gpu' else dict(machine=bench.machine(bench.Bench(Path('.'))))
    write_json(args.out, {**old, **machine, **found})


if __name__=='__main__': main()
