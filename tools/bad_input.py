"""Give the library every bad input of tests/bad_inputs.py, and write down what it says.

    python tools/bad_input.py     writes data/results/bad_input.json, the table of nbs/51_bad_input.ipynb
"""
import json, os, sys, tempfile
from pathlib import Path

root = Path(__file__).resolve().parents[1]
os.environ.update(FSIC_PROGRESS='0', MPLBACKEND='Agg')
sys.path.insert(0, str(root/'tests'))


def main():
    from bad_inputs import BAD, record
    rows = []
    for kind, name, what, *_ in BAD:
        with tempfile.TemporaryDirectory() as d: rows.append(record(kind, name, what, Path(d).resolve()))
    lines = ',\n'.join(json.dumps(r, ensure_ascii=False) for r in rows)
    (root/'data'/'results'/'bad_input.json').write_text(f'[\n{lines}\n]\n', encoding='utf-8')
    print(f'{len(rows)} rows')


if __name__=='__main__': main()
