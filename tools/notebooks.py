"""Run, check and publish the notebooks.

    python tools/notebooks.py run [NOTEBOOK ...]   execute and save the outputs (default: all, in order)
    python tools/notebooks.py check                clean, exported, small and tidy? changes nothing
    python tools/notebooks.py readme               README.md from nbs/index.ipynb
    python tools/notebooks.py doors                every notebook's links to Colab and Binder, and the cell that installs

nbdev's own commands for the last one need Quarto; `nbdev_test` runs notebooks but saves no outputs. Hence this file.
"""
import argparse, contextlib, os, re, subprocess, sys, tempfile
from pathlib import Path

os.environ['FSIC_PROGRESS'] = '0'             # no bars in saved outputs
os.environ.setdefault('OMP_NUM_THREADS', '1')  # the order of sums, so the last digits, depends on it

from execnb.nbio import nb2str, read_nb
from execnb.shell import CaptureShell, format_exc
from fastcore.xtras import working_directory
from nbdev.clean import clean_nb
from nbdev.process import NBProcessor

import doors

root = Path(__file__).resolve().parents[1]
nbs, lib, readme = root/'nbs', root/'fsic_nb', root/'README.md'
max_notebook, max_figure, max_lines = 300_000, 60_000, 40   # bytes, bytes, lines a code cell

# What changes from run to run or from machine to machine has no place in a saved output.
untidy = {
    'a path of one machine': re.compile(r'(?<![\w.])(/home/|/root/|/tmp/|/Users/|/var/folders/|[A-Z]:\\Users)|' + re.escape(str(root))),
    'a memory address': re.compile(r'0x[0-9a-fA-F]{6,}'),
    'a clock': re.compile(r'\b\d\d?:[0-5]\d:[0-5]\d\b|Wall time'),
    'a progress bar': re.compile(r'\d%\||\d ?it/s|\ds/it|\r'),
    'a traceback': re.compile(r'Traceback \(most recent call last\)')}


def notebooks()->list: # paths in reading order
    "The repository's notebooks."
    return sorted(p for p in nbs.glob('*.ipynb') if p.name[0] not in '._')


def directives(nb):
    "Give every cell of `nb` its `directives_` (what follows `#|`), sources untouched."
    return NBProcessor(nb=nb, rm_directives=False).nb


def is_off(cell)->bool: # True for `#| eval: false`
    "Is this cell never to be run?"
    return cell.directives_.get('eval:', [''])[0].lower()=='false'


def is_widget(output)->bool: # True for a slider and the like, which needs a running kernel; what it shows is an output of its own
    "Is this the control of a widget?"
    return any('widget' in k for k in output.get('data', {}))


# --- run ---------------------------------------------------------------------------------------------------------------

class CellError(Exception):
    "A cell that failed: which, and why."
    def __init__(self, path, cell, exc):
        head = next((l for l in cell.source.splitlines() if l.strip() and not l.startswith('#|')), '')
        super().__init__(f'{"".join(format_exc(exc))}\n{path.name}, cell {cell.idx_} ({head.strip()[:60]}): {type(exc).__name__}: {exc}')


def execute(
    path:Path, # the notebook
    timeout:int=900, # seconds a cell may take
    source=None, # called with a cell, gives the code to run instead of the cell's own
    around=None, # called with a cell and the names that it finds, gives a context to run it in
):  # the notebook with fresh outputs
    "Run a notebook from its own folder as `nbdev_test` does; raise `CellError` where it fails."
    nb = directives(read_nb(path))
    shell = CaptureShell(path.parent, mpl_format='png', timeout=timeout)
    sys.path.insert(0, str(root))
    with working_directory(path.parent):
        for cell in nb.cells:
            if cell.cell_type!='code' or is_off(cell): continue
            with around(cell, shell.user_ns) if around else contextlib.nullcontext():
                outputs = shell.run(source(cell) if source else cell.source)
            if shell.exc: raise CellError(path, cell, shell.exc)
            cell.outputs = [o for o in outputs if o.get('name')!='stderr' and not is_widget(o)]   # warnings are not results
    return nb


def cleaned(nb)->str: # the text of the file
    "`nb` as `nbdev_clean` leaves it: no counters, no stray metadata, keys sorted."
    clean_nb(nb, clean_ids=False)
    return nb2str(nb)


def save(path:Path, text:str):
    "Write `text` to `path` at once or not at all; an unchanged file is not touched."
    if path.exists() and path.read_text(encoding='utf-8')==text: return
    tmp = path.with_name(f'.{path.name}.{os.getpid()}.part')
    try:
        tmp.write_text(text, encoding='utf-8')
        os.replace(tmp, path)
    finally: tmp.unlink(missing_ok=True)


def run(paths:list, timeout:int)->int: # the exit code
    "Execute notebooks, each in a process of its own, and save their outputs."
    if len(paths)>1:  # no notebook sees what another one left in memory
        codes = [subprocess.call([sys.executable, __file__, 'run', '--timeout', str(timeout), str(p)]) for p in paths]
        return max(codes)
    path = paths[0].resolve()
    try: nb = execute(path, timeout)
    except CellError as e: sys.exit(f'{e}\n{path.name} is unchanged.')
    save(path, cleaned(nb))
    print(f'{path.name}: run and saved')
    return 0


# --- check -------------------------------------------------------------------------------------------------------------

def texts(output):
    "All text of one saved output."
    found = [output.get('text', '')] + [v for k,v in output.get('data', {}).items() if k.startswith('text/') or 'svg' in k]
    return ''.join(s for v in found for s in v)


def output_problems(output):
    "What is wrong with one saved output."
    data = output.get('data', {})
    png = len(data.get('image/png', ''))*3//4
    if png>max_figure: yield f'a figure of {png//1000} kB, at most {max_figure//1000} are allowed (lower the dpi)'
    if output['output_type']=='error': yield 'a saved error; run the notebook again'
    if output.get('name')=='stderr': yield 'a saved warning or log; run the notebook again'
    if is_widget(output): yield 'a saved widget; run the notebook with tools/notebooks.py run'
    for what, pattern in untidy.items():
        if m := pattern.search(texts(output)): yield f'{what} in a saved output ({m.group().strip()!r})'


def notebook_problems(path:Path):
    "What is wrong with one notebook."
    text, nb = path.read_text(encoding='utf-8'), directives(read_nb(path))
    if cleaned(read_nb(path))!=text: yield f'{path.name}: not clean; run nbdev_clean'
    if len(text.encode())>max_notebook: yield f'{path.name}: {len(text.encode())//1000} kB, at most {max_notebook//1000} are allowed'
    code = [c for c in nb.cells if c.cell_type=='code']
    for c in code:
        n = len(c.source.splitlines())
        if n>max_lines: yield f'{path.name}, cell {c.idx_}: {n} lines, at most {max_lines} are allowed; split it'
        for o in c.outputs:
            for problem in output_problems(o): yield f'{path.name}, cell {c.idx_}: {problem}'
    if any('export' in c.directives_ for c in code) and not any(c.outputs for c in code):
        yield f'{path.name}: no saved outputs; run tools/notebooks.py run nbs/{path.name}'


def exported(folder:Path)->dict: # name -> text of every module
    "What `nbdev_export` makes of today's notebooks, made in a copy under `folder`."
    for sub in (folder/'nbs', folder/'fsic_nb'): sub.mkdir()
    for p in [root/'settings.ini', *notebooks()]: (folder/p.relative_to(root)).write_bytes(p.read_bytes())
    # written by hand: the face of the library, whose __version__ an export renews, and the door of its commands
    for p in lib.glob('__*__.py'): (folder/'fsic_nb'/p.name).write_bytes(p.read_bytes())
    env = {k:v for k,v in os.environ.items() if k!='IN_TEST'}   # nbdev exports nothing under test
    subprocess.run([sys.executable, '-c', 'from nbdev.doclinks import nbdev_export; nbdev_export.__wrapped__()'],
                   cwd=folder, env=env, check=True)
    return modules(folder/'fsic_nb')


def modules(folder:Path)->dict: # name -> text
    "The Python files of a library folder."
    return {p.relative_to(folder).as_posix(): p.read_text(encoding='utf-8') for p in sorted(folder.rglob('*.py'))}


def export_problems():
    "Where the library differs from the notebooks."
    with tempfile.TemporaryDirectory() as d: want = exported(Path(d).resolve())
    have = modules(lib)
    for name in sorted(want.keys()|have.keys()):
        if name not in have: yield f'fsic_nb/{name}: missing; run nbdev_export'
        elif name not in want: yield f'fsic_nb/{name}: no notebook exports it; delete it'
        elif have[name]!=want[name]: yield f'fsic_nb/{name}: differs from its notebook; run nbdev_export (edit notebooks, not modules)'


def readme_problems():
    "Is README.md what nbs/index.ipynb says?"
    index = nbs/'index.ipynb'
    if not index.exists(): return
    if any('image/png' in o.get('data', {}) for c in read_nb(index).cells for o in c.get('outputs', [])):
        yield 'index.ipynb: a figure as output does not reach README.md; save it in figures/ and show it by Markdown'
    if not readme.exists() or readme.read_text(encoding='utf-8')!=as_readme(index):
        yield 'README.md: differs from nbs/index.ipynb; run tools/notebooks.py readme'


def check()->int: # the exit code
    "Print one line for every problem; change nothing."
    found = [p for nb in notebooks() for p in notebook_problems(nb)] + list(export_problems()) + list(readme_problems()) + list(door_problems())
    for problem in found: print(problem)
    print(f'{len(notebooks())} notebooks checked, ' + (f'{len(found)} problems.' if found else 'all clean and exported.'))
    return int(bool(found))


# --- doors --------------------------------------------------------------------------------------------------------------

def with_doors()->dict: # path -> text
    "Every notebook with its door, and what Binder reads."
    needs, texts, every = doors.Needs(root), {}, set()
    for path in notebooks():
        nb, needed = read_nb(path), needs.extras_of(path.stem)
        doors.put(nb, doors.line(needs.cfg, path.stem, needed), doors.install(needs.cfg, needed))
        texts[path] = cleaned(nb)
        every |= {*needed}
    binder = doors.binder(needs.cfg, [e for e in needs.extras if e in every])
    return texts | {root/name: text for name, text in binder.items()}


def door_problems():
    "Doors that are missing or not as settings.ini and the sources have it."
    for path, text in with_doors().items():
        if path.exists() and path.read_text(encoding='utf-8')==text: continue
        yield f'{path.relative_to(root).as_posix()}: its door to Colab and Binder is missing or out of date; run tools/notebooks.py doors'


def write_doors():
    "Write all doors; what is up to date is not touched."
    for path, text in with_doors().items():
        path.parent.mkdir(exist_ok=True)
        save(path, text)
        if path.name=='postBuild': path.chmod(0o755)


# --- readme ------------------------------------------------------------------------------------------------------------

def from_root(markdown:str)->str: # the same text, read one folder higher
    "Make links written in nbs/ work from the root: ../figures/x.png -> figures/x.png, 00_core.ipynb -> nbs/00_core.ipynb."
    markdown = re.sub(r'(\]\(|src=")\.\./', r'\1', markdown)
    return re.sub(r'(\]\()([\w.-]+\.ipynb)', r'\1nbs/\2', markdown)


def shown(output)->str: # Markdown
    "One saved output as Markdown; figures belong in figures/."
    data = output.get('data', {})
    if 'text/markdown' in data: return ''.join(data['text/markdown'])
    text = ''.join(output.get('text', data.get('text/plain', ''))).rstrip()
    return f'```\n{text}\n```' if text and 'image/png' not in data else ''


def cell_markdown(cell)->list: # blocks of Markdown
    "One cell of the index as it stands in README.md."
    if cell.cell_type=='markdown': return [from_root(cell.source.strip())]
    if cell.cell_type!='code' or 'hide' in cell.directives_: return []
    code = '\n'.join(l for l in cell.source.splitlines() if not l.startswith('#|')).strip()
    hidden = cell.directives_.get('echo:', [''])[0].lower()=='false' or not code
    return ([] if hidden else [f'```python\n{code}\n```']) + [from_root(shown(o)) for o in cell.outputs]


def as_readme(index:Path)->str: # README.md
    "The index notebook as one Markdown page."
    blocks = [b for c in directives(read_nb(index)).cells for b in cell_markdown(c)]
    return '\n\n'.join(b for b in blocks if b) + '\n'


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    r = commands.add_parser('run', help='execute notebooks and save their outputs')
    r.add_argument('notebook', nargs='*', type=Path, help='default: all')
    r.add_argument('--timeout', type=int, default=900, help='seconds a cell may take')
    commands.add_parser('check', help='report what is not clean, exported or tidy')
    commands.add_parser('readme', help='write README.md from nbs/index.ipynb')
    commands.add_parser('doors', help='write the links to Colab and Binder, and the cell that installs')
    a = parser.parse_args()
    if a.command=='run': sys.exit(run(a.notebook or notebooks(), a.timeout))
    if a.command=='check': sys.exit(check())
    if a.command=='doors': return write_doors()
    save(readme, as_readme(nbs/'index.ipynb'))


if __name__=='__main__': main()
