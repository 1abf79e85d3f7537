"""What each extra of settings.ini downloads and adds to the disk: measured in this environment, kept in docs/extras.json.

    python tools/sizes.py    needs all extras installed (`make test` does that) and a package index

Installed sizes are without byte code, which adds about a third. The site's page Install shows both (tools/site_pages.py).
"""
import json, subprocess, sys, urllib.request
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement

from site_pages import docs, extras, root, settings


def plain(name)->str: return name.lower().replace('_', '-')


def closure(requirements)->set: # names
    "Everything that `requirements` install, what those require included."
    found, todo, seen = set(), [Requirement(r) for r in requirements], set()
    while todo:
        r = todo.pop()
        if str(r) in seen: continue
        seen.add(str(r))
        d = distribution(r.name)
        found.add(plain(d.name))
        needs = [Requirement(s) for s in d.requires or []]
        todo += [n for n in needs if not n.marker or any(n.marker.evaluate(dict(extra=e)) for e in r.extras or {''})]
    return found


def on_disk(name)->float: return sum(f.size or 0 for f in distribution(name).files or [])/1e6 # MB


def wheels()->dict: # package -> MB
    "The size of every wheel that pip would fetch for everything."
    command = ['-m', 'pip', 'install', '--quiet', '--dry-run', '--ignore-installed', '--report', '-', f'{root}[dev]']
    found = json.loads(subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True).stdout)
    sizes = {}
    for i in found['install']:
        where = urlsplit(i['download_info']['url'])
        if where.scheme=='file': size = Path(unquote(where.path)).stat().st_size
        else:
            with urllib.request.urlopen(urllib.request.Request(where.geturl(), method='HEAD'), timeout=60) as r: size = int(r.headers['Content-Length'])
        sizes[plain(i['metadata']['name'])] = size/1e6
    return sizes


def main():
    try:
        base = closure(settings()['requirements'].split())
        names = {extra: closure(requirements)-(base if extra else set()) for extra, requirements in extras().items()}
        disk = {n: on_disk(n) for n in set().union(*names.values())}
    except PackageNotFoundError as e: sys.exit(f'{e}: install all extras first (pip install -e ".[dev]")')
    wheel = wheels()
    rows = json.loads((docs/'extras.json').read_text(encoding='utf-8'))
    for extra, own in names.items(): rows[extra].update(mb=round(sum(disk[n] for n in own)), wheels=round(sum(wheel.get(n, 0) for n in own)))
    torch = [n for n in base if n.startswith(('torch', 'nvidia', 'cuda', 'triton'))]
    rows[''].update(torch=round(sum(disk[n] for n in torch)), torch_wheels=round(sum(wheel.get(n, 0) for n in torch)))
    text = ',\n'.join(f' {json.dumps(name)}: {json.dumps(row, ensure_ascii=False)}' for name, row in rows.items())
    (docs/'extras.json').write_text(f'{{\n{text}\n}}\n', encoding='utf-8')
    print('\n'.join(f'{name or "(nothing)":12s}{row["wheels"]:7,} MB of wheels {row["mb"]:7,} MB on the disk' for name, row in rows.items()))


if __name__=='__main__': main()
