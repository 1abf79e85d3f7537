"The house rules of the repository, read off the sources: nothing is run, nothing is imported from the library."
import ast, re
from collections import defaultdict
from configparser import ConfigParser
from pathlib import Path

import pytest
from execnb.nbio import read_nb

import api_docs, build_docs, notebooks

root = Path(__file__).resolve().parents[1]
modules = {m.name: m for p in sorted((root/'fsic_nb').glob('*.py')) if (m := api_docs.Module(p)).public}
chapters = {p: notebooks.directives(read_nb(p)).cells for p in notebooks.notebooks()}
notebook_of = {m.name: m.cell(len(m.lines))[0] for m in modules.values()}
order = sorted(modules, key=notebook_of.get)
each_module = pytest.mark.parametrize('name', modules)
each_chapter = pytest.mark.parametrize('path', chapters, ids=lambda p: p.stem)


def is_export(cell): return any(d.startswith('export') for d in cell.directives_)


def parsed(source):
    "The tree of a cell; magics and shell lines are left out."
    return ast.parse('\n'.join(l for l in source.splitlines() if not l.lstrip().startswith(('%', '!'))))


def used(tree)->set:
    "Every name that a piece of code reads, calls, imports or takes from an object."
    found = set()
    for o in ast.walk(tree):
        if isinstance(o, ast.Name) and isinstance(o.ctx, ast.Load): found.add(o.id)
        elif isinstance(o, ast.Attribute): found.add(o.attr)
        elif isinstance(o, ast.alias): found.add(o.name.split('.')[-1])
    return found


def shown_in(cells)->set:
    "The names that a notebook's own code uses, or that its text sets as code."
    found = set()
    for c in cells:
        if c.cell_type=='code' and not is_export(c): found |= used(parsed(c.source))
        if c.cell_type=='markdown': found |= {n for code in re.findall(r'`([^`]+)`', c.source) for n in re.findall(r'\w+', code)}
    return found
