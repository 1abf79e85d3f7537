"""What every shipped cell will cost, with one measured step of each network on this machine: writes data/results/cost.json.

    python tools/costs.py            takes about a minute; nothing is trained, no data are needed
"""
import torch
from pathlib import Path
from fsic_nb.configs import CELLS
from fsic_nb.costs import dry_run, time_network
from fsic_nb.core import write_json

out = Path(__file__).resolve().parents[1]/'data'/'results'/'cost.json'


def main():
    here = {}
    for c in CELLS.values():
        key = c.backbone, c.size, c.precision
        if key not in here: here[key] = time_network(c)
    cells = {n: dry_run(c, here=here[c.backbone, c.size, c.precision]) for n, c in CELLS.items()}
    steps = {'-'.join(map(str, k)): {a: round(b, 4) if isinstance(b, float) else b for a, b in v.items()} for k, v in here.items()}
    write_json(out, dict(threads=torch.get_num_threads(), torch=torch.__version__.split('+')[0], seconds_a_picture=steps,
                         hours_here={n: round(d['hours_here'], 2) for n, d in cells.items()}))
    print('data/results/cost.json written')


if __name__=='__main__': main()
