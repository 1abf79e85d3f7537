"""Print the lowest versions that settings.ini allows, as constraints for pip.

    python tools/lowest.py [EXTRA ...] > lowest.txt     # the core requirements and those of extras
    pip install -c lowest.txt ".[demo,tag]"

So the lower bounds are tested as the newest versions are: see the job `lowest` in .github/workflows/test.yml.
"""
import re, sys
from configparser import ConfigParser
from pathlib import Path

root = Path(__file__).resolve().parents[1]


def lowest(
    *extras:str, # such as 'demo'
)->list: # constraints, such as 'torch==2.11'
    "List the lowest version of every requirement that has one."
    parser = ConfigParser(delimiters=['='])
    parser.read(root/'settings.ini', encoding='utf-8')
    cfg = parser['DEFAULT']
    missing = [e for e in extras if f'{e}_requirements' not in cfg]
    if missing: sys.exit(f'{missing[0]}: no such extra; settings.ini has {", ".join(k.removesuffix("_requirements") for k in cfg if k.endswith("_requirements"))}.')
    said = [r for k in ('requirements', *(f'{e}_requirements' for e in extras)) for r in cfg[k].split()]
    found = [re.match(r'([\w.-]+)(?:>=|==)([\w.]+)', r) for r in said]
    without = [r for r, m in zip(said, found) if not m]
    if without: sys.exit(f'{without[0]}: has no lower bound in settings.ini; give it one.')
    return sorted({f'{m[1]}=={m[2]}' for m in found})


if __name__=='__main__': print('\n'.join(lowest(*sys.argv[1:])))
