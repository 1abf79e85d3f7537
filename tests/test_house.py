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
        if c.cell_type=='markdown': found |= {n for code in build_docs.code.finditer(c.source) for n in re.findall(r'\w+', code[0])}
    return found


# --- the graph of modules -------------------------------------------------------------------------------------------------

def imports(tree)->set:
    "The modules of the library that a piece of code imports, anywhere in it."
    found = set()
    for o in ast.walk(tree):
        if isinstance(o, ast.Import): found |= {a.name.split('.')[1] for a in o.names if a.name.startswith('fsic_nb.')}
        elif isinstance(o, ast.ImportFrom):
            full = 'fsic_nb.'*bool(o.level) + (o.module or '')
            found |= {a.name for a in o.names} if full in ('fsic_nb', 'fsic_nb.') else {full.split('.')[1]} if full.startswith('fsic_nb.') else set()
    return found & {*modules}


def without_script(tree)->ast.Module:
    "A module without what it does only when it is run as a script."
    return ast.Module([o for o in tree.body if not (isinstance(o, ast.If) and ast.unparse(o.test).startswith("__name__ == '__main__'"))], [])


# A chapter may borrow from a later one what is no part of its argument.
BORROWED = {**{(n, 'show'): 'the look of its figures' for n in ('00b_pictures', '01_data', '01b_readers', '01c_prepare', '02_scenes', '03_words', '04_features', '05_episodes', '05b_protocols')}, ('21_train', 'cli'): 'python -m fsic_nb.train is fsic_train',
            ('21b_finetune', 'evaluate'): 'what was trained is scored once'}


def backwards()->set:
    "(chapter, module) wherever a chapter imports from one that is not before it."
    code = [(p.stem, parsed(c.source)) for p, cells in chapters.items() for c in cells if c.cell_type=='code' and p.stem!='index']
    return {(stem, m) for stem, tree in code for m in imports(tree) if notebook_of[m]>stem}


def test_chapters_use_only_those_before_them(): assert backwards()==BORROWED.keys()


@each_module
def test_modules_import_only_those_before_them(name):
    "At the head and inside functions; what a module does as a script is its chapter's affair (see BORROWED)."
    late = [m for m in imports(without_script(modules[name].tree)) if notebook_of[m]>=notebook_of[name]]
    assert not late, f'fsic_nb.{name} imports {late}, whose notebooks come later'


def test_only_core_is_imported_by_most():
    "A module that half of the library needs is a second core, and should be cut."
    users = {n: sum(n in imports(m.tree) for m in modules.values()) for n in modules}
    assert not [n for n in users if n!='core' and 2*users[n]>len(modules)]
    assert 2*users['core']>len(modules)


def definitions(module)->dict: # name -> node
    "The functions of a module, without those that `@patch` gives to a class."
    return {o.name: o for o in module.tree.body if isinstance(o, ast.FunctionDef) and not api_docs.patched(o)}


def test_no_helper_twice():
    "Neither two private functions of one name, nor two functions that do the same."
    names, bodies = defaultdict(list), defaultdict(list)
    for m in modules.values():
        for n, o in definitions(m).items():
            if n.startswith('_'): names[n].append(m.name)
            bodies[body_of(o)].append(f'{m.name}.{n}')
    twice = [f'{n} in {where}' for n, where in names.items() if len(where)>1] + [f'the same: {same}' for same in bodies.values() if len(same)>1]
    assert not twice


def body_of(f)->str:
    "What a function does, with its parameters numbered and its docstring left out."
    number = {a.arg: f'p{k}' for k, a in enumerate(f.args.args)}
    body = ast.parse(ast.unparse(ast.Module(f.body[bool(ast.get_docstring(f)):], [])))
    for o in ast.walk(body):
        if isinstance(o, ast.Name): o.id = number.get(o.id, o.id)
    return ast.dump(body)


# --- exports ----------------------------------------------------------------------------------------------------------------

# The parts of a benchmark: `fsic_bench` runs them, tests/test_speed.py holds them against the library.
NOT_SHOWN = {'speed'}

outside = set().union(*(used(ast.parse(p.read_text(encoding='utf-8'))) for d in ('tests', 'tools') for p in sorted((root/d).glob('*.py'))))


def commands()->set:
    "The functions that settings.ini makes commands of."
    ini = ConfigParser()
    ini.read(root/'settings.ini', encoding='utf-8')
    return {c.split(':')[1] for c in ini['DEFAULT']['console_scripts'].split()}


def used_here(module)->set:
    "The names that a module uses outside of their own definition."
    return set().union(*(used(o)-{getattr(o, 'name', None)} for o in module.tree.body))


@each_module
def test_no_export_is_dead(name):
    "Every public name is used by a module, a test, a tool or a command, or in a cell of a notebook that is no export."
    alive = outside | commands() | set().union(*map(used_here, modules.values()))
    for cells in chapters.values(): alive |= set().union(*(used(parsed(c.source)) for c in cells if c.cell_type=='code' and not is_export(c)))
    dead = [n for n in modules[name].public if n not in alive and n!='write_cells']   # called from a line of data/README.md
    assert not dead, f'fsic_nb.{name} exports {dead}, which nothing uses; delete them'


@pytest.mark.parametrize('name', sorted({*modules}-NOT_SHOWN))
def test_every_export_is_shown(name):
    "Its notebook uses it in a cell of its own, or speaks of it."
    shown = shown_in(chapters[root/'nbs'/f'{notebook_of[name]}.ipynb'])
    missing = [n for n in modules[name].public if n not in shown]
    assert not missing, f'{notebook_of[name]} never shows {missing}; use or describe them, or make them private (#| exporti)'


# --- docments ---------------------------------------------------------------------------------------------------------------

ours = {n for m in modules.values() for n in m.public}   # a type of this library describes itself


def undescribed(module):
    "The parameters and fields without a comment, and the tensors and arrays without a shape."
    for name, o in module.entries():
        init = next((f for f in getattr(o, 'body', []) if isinstance(o, ast.ClassDef) and getattr(f, 'name', '')=='__init__'), o)
        if not isinstance(init, (ast.FunctionDef, ast.ClassDef)): continue
        for p, kind, _, comment in api_docs.parameters(module, init):
            if p=='returns': continue
            if not comment and kind not in ours: yield f'{name}({p}): no comment'
            elif re.search('Tensor|ndarray', kind) and '[' not in kind and '(' not in comment: yield f'{name}({p}): no shape in {comment!r}'


@each_module
def test_every_parameter_is_described(name): assert not [*undescribed(modules[name])]


# --- chapters -----------------------------------------------------------------------------------------------------------------

def form_problems(cells):
    "What a chapter lacks: title, tagline, summary, exercises with hidden hints."
    text = [c.source for c in cells if c.cell_type=='markdown']
    if not re.match(r'# \S.*\n\n> \S', text[0]): yield 'begins with # title and > tagline'
    if sum('## Summary' in t.splitlines() for t in text)!=1: yield 'has one ## Summary'
    last = text[-1].partition('**Exercises.**')[2]
    if not last: yield 'ends with **Exercises.**'
    exercises, hints = re.findall(r'^\*\*\d\.\*\*', last, re.M), re.findall(r'<details><summary>Hint</summary>\n\n\S.*?\n\n</details>', last, re.S)
    if not 2<=len(exercises)<=3 or len(hints)!=len(exercises): yield f'has two or three exercises, each with a hidden hint (found {len(exercises)} and {len(hints)})'
    if any(re.search(r'\*Hint\b', t) for t in text): yield 'hides its hints (<details><summary>Hint</summary>)'


@pytest.mark.parametrize('path', [p for p in chapters if p.stem!='index'], ids=lambda p: p.stem)   # the index is a table of contents
def test_a_chapter_has_its_form(path): assert not [*form_problems(chapters[path])]


@each_chapter
def test_every_figure_has_a_caption(path, tmp_path):
    "As the site makes it: a picture that did not become a figure has no paragraph *Figure: ...* after it."
    page = build_docs.notebook_page(path, tmp_path, {}, {})
    bare = [l for l in build_docs.outside_code(page, lambda t: t, lambda c: '').splitlines() if l.startswith('![')]
    captioned = re.findall(r'<figure markdown="span">\n(!\[.*)', page)
    assert len(bare)==len(captioned), f'{path.name}: a figure without a paragraph *Figure: ...* after it'


@each_chapter
def test_every_figure_has_the_same_look(path):
    "A notebook with figures calls `style()`; its colours are the theme's, a palette's, or grey."
    code = [c.source for c in chapters[path] if c.cell_type=='code']
    if any('image/png' in o.get('data', {}) for c in chapters[path] for o in c.get('outputs', [])):
        assert any('style()' in c for c in code), f'{path.name} draws without style()'
    named = re.compile(r"""(?:colou?rs?|c|ec|fc|edgecolors?|facecolors?|linecolor)=['"](red|blue|green|orange|purple|yellow|magenta|cyan|brown|pink|r|b|g|m|c|y)['"]""")
    assert not [m[0] for c in code for m in named.finditer(c)]


@each_chapter
def test_a_cell_that_imports_does_nothing_else(path):
    "nbdev runs such cells again when it makes its own site."
    imports = ast.Import, ast.ImportFrom
    for c in chapters[path]:
        if c.cell_type!='code' or is_export(c): continue
        tree = parsed(c.source)
        mixed = any(isinstance(o, imports) for o in ast.walk(tree)) and not all(isinstance(o, imports) for o in tree.body)
        assert not mixed, f'{path.name}, cell {c.idx_}: imports stand alone, in a cell before'


def test_no_line_of_code_is_cut_off():
    "Longer lines do not fit JupyterLab beside its file browser, nor the site."
    long = [f'{p.name}, cell {c.idx_}: {len(l)} characters' for p, cells in chapters.items() for c in cells if c.cell_type=='code' for l in c.source.splitlines() if len(l)>120]
    assert not long
