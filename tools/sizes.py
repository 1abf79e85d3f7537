"""What each extra of settings.ini adds to the disk: measured in this environment, kept in docs/extras.json.

    python tools/sizes.py    needs all extras installed (`make test` does that); without byte code, which adds about a third

The site's page Install shows the numbers (tools/site_pages.py).
"""
import json, sys
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement

from site_pages import docs, extras, settings


def megabytes(requirements)->dict: # package -> MB
    "Everything that `requirements` install, what those require included."
    found, todo, seen = {}, [Requirement(r) for r in requirements], set()
    while todo:
        r = todo.pop()
        if str(r) in seen: continue
        seen.add(str(r))
        d = distribution(r.name)
        found[d.name.lower().replace('_', '-')] = sum(f.size or 0 for f in d.files or [])/1e6
        needs = [Requirement(s) for s in d.requires or []]
        todo += [n for n in needs if not n.marker or any(n.marker.evaluate(dict(extra=e)) for e in r.extras or {''})]
    return found


def main():
    base = megabytes(settings()['requirements'].split())
    rows = json.loads((docs/'extras.json').read_text(encoding='utf-8'))
    try:
        for name, requirements in extras().items():
            here = megabytes(requirements)
            rows[name]['mb'] = round(sum(mb for package, mb in here.items() if not name or package not in base))
    except PackageNotFoundError as e: sys.exit(f'{e}: install all extras first (pip install -e ".[dev]")')
    rows['']['torch'] = round(sum(mb for package, mb in base.items() if package.startswith(('torch', 'nvidia', 'cuda', 'triton'))))
    text = ',\n'.join(f' {json.dumps(name)}: {json.dumps(row, ensure_ascii=False)}' for name, row in rows.items())
    (docs/'extras.json').write_text(f'{{\n{text}\n}}\n', encoding='utf-8')
    print('\n'.join(f'{name or "(nothing)":12s}{row["mb"]:7,} MB' for name, row in rows.items()))


if __name__=='__main__': main()
