"""Every notebook is run, once, on the exported library; and the habits every module keeps.

Every `#| export` cell is replaced by an import of the names it defines, so the library itself is judged, with its
annotations checked, and a module that is stale or broken by its export is found. That the cells as they stand would do
the same needs no second run (`nbdev_test`): their text is the module's (`tools/notebooks.py check`), and before each
cell every name that exported functions use must be in the notebook the very object that it is in the module, or is
taken out of the module where the notebook does not have it yet.
"""
import ast, builtins, contextlib, importlib, inspect, json, os, re, symtable, sys
from pathlib import Path

import matplotlib, matplotlib.pyplot as plt
import pytest
import torch
from execnb.nbio import read_nb
from fastcore.docments import docments

import doors, notebooks

root = Path(__file__).resolve().parents[1]
lib = root/'fsic_nb'
modules = sorted(p.stem for p in lib.glob('*.py') if not p.stem.startswith('_'))
exports = {'export', 'exports', 'exporti'}


# --- the notebooks' tests on the exported library -----------------------------------------------------------------------

def default_exp(nb):
    "The module a notebook writes, None if it writes none."
    cells = notebooks.directives(nb).cells
    if not any(exports & c.directives_.keys() for c in cells): return None
    return next(c.directives_['default_exp'][0] for c in cells if 'default_exp' in c.directives_)


exporting = {p: m for p in notebooks.notebooks() if (m := default_exp(read_nb(p)))}


def is_patch(d):
    "Is this decorator fastcore's `patch` or `patch_to`?"
    d = d.func if isinstance(d, ast.Call) else d
    return isinstance(d, ast.Name) and d.id in ('patch', 'patch_to')


def defined(node):
    "The names that a statement at module level binds."
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        if not any(map(is_patch, node.decorator_list)): yield node.name   # patches live in their class
    elif isinstance(node, ast.Name):
        if isinstance(node.ctx, ast.Store): yield node.id
    elif not isinstance(node, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
        for child in ast.iter_child_nodes(node): yield from defined(child)


def from_library(module):
    "For `notebooks.execute`: an export cell's imports stay, all else in it comes from the library."
    def source(cell):
        here = exports & cell.directives_.keys()
        if not here: return cell.source
        target = (cell.directives_[here.pop()] or [module])[0]
        body = ast.parse(cell.source).body
        imports = [o for o in body if isinstance(o, (ast.Import, ast.ImportFrom))]
        names = [n for o in body if o not in imports for n in defined(o)]
        return '\n'.join([ast.unparse(o) for o in imports] + [f'from fsic_nb.{target} import {n}' for n in dict.fromkeys(names)])
    return source


def used(table):
    "The global names that the functions of a piece of code use when they are called."
    if table.get_type()=='function': yield from (o.get_name() for o in table.get_symbols() if o.is_global() and o.is_referenced())
    for inner in table.get_children(): yield from used(inner)


def as_in_the_notebook(module):
    "For `notebooks.execute`: exported functions find what they would find as functions of the notebook."
    needed = set()
    lib = vars(importlib.import_module(f'fsic_nb.{module}')) if module else {}
    @contextlib.contextmanager
    def around(cell, names):
        if exports & cell.directives_.keys():
            needed.update(used(symtable.symtable(cell.source, 'cell', 'exec')))
            yield
            return
        own = {n: x for n, x in names.items() if not (n=='open' and getattr(x, '__wrapped__', None) is open)}   # IPython puts its own there
        known = {**vars(builtins), **own}
        late = {n: lib.pop(n) for n in needed if n in lib and n not in known}   # a NameError in the notebook, so one here
        try:
            other = [n for n in needed if n in known and known[n] is not lib.get(n, getattr(builtins, n, known[n]))]
            if other: raise Shadowed(f'{", ".join(sorted(other))}: exported functions use it, and the notebook has given the name to something else')
            yield
        finally: lib.update(late)
    return around


class Shadowed(Exception): pass


@pytest.fixture
def own_process():
    "What a notebook changes in this process is put back: folder, path, `__main__`, matplotlib and its open figures."
    plt.close('all')                                          # of other tests in this process
    folder, path, main = os.getcwd(), sys.path[:], sys.modules['__main__']
    torch.set_warn_always(True)                               # not only in the first notebook of a process
    yield
    torch.set_warn_always(False)
    os.chdir(folder)
    sys.path[:], sys.modules['__main__'] = path, main
    matplotlib.use('agg')
    matplotlib.rcdefaults()
    plt.close('all')


needs = doors.Needs(root)


class Hides:
    "A finder of modules that finds all but some."
    def __init__(self, finder, hidden): self.finder, self.hidden = finder, hidden
    def __getattr__(self, name): return getattr(self.finder, name)
    def find_spec(self, name, *args): return None if name.split('.')[0] in self.hidden else self.finder.find_spec(name, *args)


@pytest.fixture
def without(monkeypatch):
    "Call it with a notebook: the optional packages that its door does not bring are as if they were not installed."
    def hide(stem):
        brought = set().union(*(needs.extras[e] for e in needs.extras_of(stem)))
        # pandas and transformers look for these two once, when they are imported, and use them from then on
        hidden = {doors.module(p) for p in needs.optional-brought} - {'pyarrow', 'accelerate'}
        for name in [m for m in sys.modules if m.split('.')[0] in hidden]: monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, 'meta_path', [Hides(f, hidden) for f in sys.meta_path])
        return hidden
    return hide


def said(cells)->list: # of (cell, kinds of output, words)
    "What the outputs of a notebook say, their numbers left out: those differ between processors."
    return [(c.idx_, [sorted(o.get('data', {'stream': 0})) for o in c.outputs],
             sorted(re.findall(r'[^\W\d]{2,}', ' '.join(map(notebooks.texts, c.outputs))))) for c in cells if c.cell_type=='code' and not notebooks.is_off(c)]


def stale(saved, fresh):
    "What to say of each cell whose saved outputs are not those of a fresh run."
    for old, new in zip(said(saved.cells), said(fresh.cells), strict=True):
        if old!=new: yield f'cell {old[0]}: saved {old[1:]}, but a run gives {new[1:]}; run tools/notebooks.py run'


def test_there_are_notebooks(): assert exporting


@pytest.mark.filterwarnings('error::UserWarning', 'error::RuntimeWarning', 'error::FutureWarning')   # red in JupyterLab
@pytest.mark.parametrize('path', notebooks.notebooks(), ids=lambda p: p.stem)
def test_notebook_on_the_library(path, own_process, without):
    "Its tests hold with the exported library and what its door installs, and its saved outputs are fresh."
    without(path.stem)
    failed, module = '', exporting.get(path)
    try: fresh = notebooks.execute(path, timeout=None, source=from_library(module), around=as_in_the_notebook(module))   # pytest has its own clock
    except (notebooks.CellError, Shadowed) as e: failed = f'{e}\n(its #| export cells were imported from fsic_nb)'
    failed = failed or next(stale(notebooks.directives(read_nb(path)), fresh), '')
    if failed: pytest.fail(failed, pytrace=False)


def test_a_stale_output_is_caught(tmp_path, own_process):
    "Other words, another kind of output or none are found; other numbers are not."
    nb = json.loads((root/'nbs'/'00_core.ipynb').read_text(encoding='utf-8'))
    one = dict(nb['cells'][0], cell_type='code', outputs=[dict(output_type='stream', name='stdout', text='mAP 31.4 %')], execution_count=None)
    def found(source):
        (tmp_path/'one.ipynb').write_text(json.dumps(dict(nb, cells=[dict(one, source=source)])), encoding='utf-8')
        return [*stale(notebooks.directives(read_nb(tmp_path/'one.ipynb')), notebooks.execute(tmp_path/'one.ipynb', timeout=None))]
    assert not found("print('mAP 27.1 %')")
    for source in ("print('recall 31.4 %')", "'mAP 31.4 %'", '1;'): assert len(found(source))==1, source


def test_a_stale_export_is_caught(tmp_path, own_process):
    "The test above would fail if the library lagged behind its notebook."
    text = (root/'nbs'/'00_core.ipynb').read_text(encoding='utf-8')
    (tmp_path/'00_core.ipynb').write_text(text.replace('def home()', 'def new_home()'), encoding='utf-8')
    with pytest.raises(notebooks.CellError, match='new_home'):
        notebooks.execute(tmp_path/'00_core.ipynb', timeout=None, source=from_library('core'))


@pytest.mark.parametrize('cells, said', [
    (['#| export\nimport os\ndef home(): return os', 'home()'], ''),
    (['#| export\nimport os\ndef home(): return os', 'os = 1', 'home()'], 'os: exported functions use it'),
    (['#| export\ndef say(): print()', 'print = 1', 'say'], 'print: exported functions use it'),
    (['#| export\ndef draw_seed(): rng()', 'draw_seed(0)', '#| export\ndef rng(): pass'], "name 'rng' is not defined"),
    (['#| export\ndef draw_seed(): rng()', '1', '#| export\ndef rng(): pass', 'draw_seed(0)'], '')])
def test_what_a_run_of_the_cells_as_they_stand_would_find_is_found(cells, said, tmp_path, own_process):
    "Names that the notebook gives to something else, and functions that are called before what they call is there."
    nb = json.loads((root/'nbs'/'00_core.ipynb').read_text(encoding='utf-8'))
    code = [dict(cell_type='code', id=f'c{i}', metadata={}, source=c, outputs=[], execution_count=None) for i, c in enumerate(cells)]
    (tmp_path/'one.ipynb').write_text(json.dumps(dict(nb, cells=code)), encoding='utf-8')
    with pytest.raises((notebooks.CellError, Shadowed), match=said) if said else contextlib.nullcontext():
        notebooks.execute(tmp_path/'one.ipynb', timeout=None, source=from_library('core'), around=as_in_the_notebook('core'))


# --- habits of every module ----------------------------------------------------------------------------------------------

def tree(path): return ast.parse(path.read_text(encoding='utf-8'))


def public(body):
    "The public functions and classes of a module, and the public methods in them."
    for o in body:
        if isinstance(o, (ast.FunctionDef, ast.ClassDef)) and not o.name.startswith('_') and o.name!='forward':
            yield o   # a module's `forward` is what its class describes
            if isinstance(o, ast.ClassDef): yield from public(o.body)


@pytest.mark.parametrize('name', modules)
def test_public_names_have_a_docstring(name):
    missing = [o.name for o in public(tree(lib/f'{name}.py').body) if not ast.get_docstring(o)]
    assert not missing, f'fsic_nb.{name}: a one-line docstring is missing in {missing}'


@pytest.mark.parametrize('name', modules)
def test_parameters_are_described(name):
    "A function of three parameters or more describes each of them by a comment, or by a type of this library."
    mod = importlib.import_module(f'fsic_nb.{name}')
    missing = []
    for f in (getattr(mod, n) for n in mod.__all__):
        if not inspect.isfunction(f) or f.__module__!=mod.__name__ or f.__name__=='<lambda>': continue
        kinds = inspect.signature(f).parameters
        named = [n for n,p in kinds.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        comments = docments(f)
        ours = [n for n in named if getattr(kinds[n].annotation, '__module__', '').startswith('fsic_nb.')]
        if len(named)>2: missing += [f'{f.__name__}({n})' for n in named if not comments.get(n) and n not in ours]
    assert not missing, f'fsic_nb.{name}: a comment is missing for {missing}'


def imported(path):
    "The modules of fsic_nb that a module of fsic_nb imports, anywhere in it but where it is run as a command."
    code = [o for o in tree(path).body if not (isinstance(o, ast.If) and '__name__' in ast.unparse(o.test))]
    for o in (x for c in code for x in ast.walk(c)):
        if isinstance(o, ast.ImportFrom):
            full = ('fsic_nb' + ('.'+o.module if o.module else '')) if o.level else o.module
            if full=='fsic_nb': yield from (a.name for a in o.names)
            elif full.startswith('fsic_nb.'): yield full.split('.')[1]
        if isinstance(o, ast.Import): yield from (a.name.split('.')[1] for a in o.names if a.name.startswith('fsic_nb.'))


def test_imports_point_one_way():
    "A notebook builds on those before it, so a module imports only modules of earlier notebooks."
    order = list(exporting.values())
    wrong = [f'{m} imports {i}' for m in order for i in imported(lib/f'{m}.py') if i in order and order.index(i)>=order.index(m)]
    assert not wrong


unsafe_modules = {'pickle', 'cPickle', 'dill', 'cloudpickle', 'joblib', 'marshal', 'shelve'}


def unsafe(path):
    "Ways of reading a file that may run what it contains."
    for o in ast.walk(tree(path)):
        if isinstance(o, ast.Import): found = [a.name for a in o.names if a.name.split('.')[0] in unsafe_modules]
        elif isinstance(o, ast.ImportFrom): found = [o.module] if (o.module or '').split('.')[0] in unsafe_modules else []
        elif isinstance(o, ast.Call): found = unsafe_call(o)
        else: found = []
        yield from (f'{path.name}, line {o.lineno}: {f}' for f in found)


def unsafe_call(o):
    "What is unsafe in one call."
    name, given = ast.unparse(o.func), {k.arg: getattr(k.value, 'value', None) for k in o.keywords}
    if name in ('eval', 'exec', 'torch.save', 'KeyedVectors.load'): yield f'{name}(...)'
    if name=='torch.load' and given.get('weights_only') is not True: yield 'torch.load without weights_only=True'
    if given.get('allow_pickle', False) is not False: yield 'allow_pickle'


@pytest.mark.parametrize('folder', ['fsic_nb', 'tools'])
def test_no_file_is_executed(folder):
    found = [f for p in sorted((root/folder).rglob('*.py')) for f in unsafe(p)]
    assert not found


def test_the_rule_against_execution_works(tmp_path):
    bad = tmp_path/'bad.py'
    bad.write_text("import pickle\nfrom torch import nn\nm.eval()\neval('1')\ntorch.load(f)\ntorch.load(f, weights_only=True)\n"
                   "np.load(f, allow_pickle=False)\nnp.load(f, allow_pickle=True)\n")
    assert [f.split(':')[0] for f in unsafe(bad)]==[f'bad.py, line {n}' for n in (1, 4, 5, 8)]
