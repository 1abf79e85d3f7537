"""What every shipped cell will cost, from measured steps of each network on this machine: writes data/results/cost.json.

    python tools/costs.py              takes a few minutes; nothing is trained, no data are needed
    python tools/costs.py --recount    counts again, with the steps that the file has from a quiet machine
"""
import argparse
from pathlib import Path

import torch
from fsic_nb.configs import CELLS
from fsic_nb.files import read_json, write_json
from fsic_nb.costs import dry_run, time_network

out = Path(__file__).resolve().parents[1]/'data'/'results'/'cost.json'
REPEATS = 3   # whatever else runs on the machine only makes a step slower, so the fastest one counts


def network(cell): return f'{cell.backbone}-{cell.size}-{cell.precision}'


def fastest(cell)->dict: # device; forward and training, seconds an image
    "Time a cell's network some times and keep the fastest."
    tries = [time_network(cell) for _ in range(REPEATS)]
    return dict(device=tries[0]['device'],
                **{k: round(min(t[k] for t in tries), 4) for k in ('forward', 'training')})


def measure()->dict: # threads, torch, seconds_an_image
    "Time every network once, whatever the number of its cells."
    one_each = {network(c): c for c in CELLS.values()}
    return dict(threads=torch.get_num_threads(), torch=torch.__version__.split('+')[0],
                seconds_an_image={name: fastest(c) for name, c in one_each.items()})


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--recount', action='store_true', help='keep the measured steps')
    d = read_json(out) if parser.parse_args().recount else measure()
    steps = d['seconds_an_image']
    hours = {n: dry_run(c, here=steps[network(c)])['hours_here'] for n, c in CELLS.items()}
    write_json(out, {**d, 'hours_here': {n: round(h, 2) for n, h in hours.items()}})
    print('data/results/cost.json written')


if __name__=='__main__': main()
