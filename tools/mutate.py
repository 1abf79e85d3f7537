"""Which test fails when the library is wrong? One fault at a time, in a copy; every one of them must be found.

    python tools/mutate.py                      every fault of mutations.toml
    python tools/mutate.py metrics records-sign some of them, by module or by name
    python tools/mutate.py --check              only whether each fault still fits the library
    python tools/mutate.py --random 20 lcm      twenty faults that nobody thought of, in one module

A fault of the list is a piece of a module that occurs exactly once, and what stands there instead. The library, its tests
and tools are copied to a temporary folder; the tree is never touched, and nothing is kept in the caches of the library.
Who survives is named, and the exit code is 1. `FSIC_PROGRESS=0 OMP_NUM_THREADS=1` is set for the tests.
"""
import argparse, ast, contextlib, copy, os, random, shutil, signal, sys, tempfile, time, tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_name('mutations.toml')
TIMEOUT = 300                         # seconds; a fault that makes a test hang is found, too
COPIED = 'fsic_nb', 'tests', 'tools', 'data/configs', 'data/splits', 'data/page', 'data/models', 'data/results'
LOADED = ('pytest', 'hypothesis.strategies', 'numpy', 'torch', 'pandas', 'matplotlib.pyplot', 'sklearn.linear_model', 'sklearn.svm', 'sklearn.metrics',
          'sklearn.neighbors', 'timm', 'safetensors.torch', 'jaxtyping', 'beartype', 'fastcore.basics', 'PIL.Image', 'filelock', 'tqdm')


@dataclass(frozen=True)
class Fault:
    "What is written instead of a piece of a module, and the tests that should notice."
    name: str
    module: str
    old: str
    new: str
    tests: tuple

    def apply(self, text:str)->str:
        "The module with the fault; the piece must occur exactly once."
        n = text.count(self.old)
        if n!=1: raise ValueError(f'{self.name}: {self.old!r} occurs {n} times in {self.module}.py; mend its entry in {LIST.name}.')
        if self.old==self.new: raise ValueError(f'{self.name}: changes nothing; mend its entry in {LIST.name}.')
        return text.replace(self.old, self.new)


def read_list(path:Path=LIST)->tuple: # faults, {module: tests}, [(module, before, after)] of faults that change nothing
    "Read the list."
    d = tomllib.loads(path.read_text(encoding='utf-8'))
    by_module = {m: tuple(t) for m, t in d['tests'].items()}
    faults = [Fault(f['name'], f['module'], f['old'], f['new'], tuple(f.get('tests') or by_module[f['module']])) for f in d['fault']]
    names = [f.name for f in faults]
    if twice := {n for n in names if names.count(n)>1}: raise ValueError(f'{path.name}: {sorted(twice)[0]} is there twice.')
    return faults, by_module, [(e['module'], e['old'], e['new']) for e in d.get('equivalent', [])]


def check(faults:list, root:Path=ROOT)->list: # of sentences, one for every entry that no longer fits
    "Compare the list with the library."
    wrong = []
    for f in faults:
        path = root/'fsic_nb'/f'{f.module}.py'
        try:
            f.apply(path.read_text(encoding='utf-8'))
            missing = [t for t in f.tests if not (root/'tests'/t.split('::')[0]).exists()]
            if missing: raise ValueError(f'{f.name}: there is no tests/{missing[0]}.')
        except (OSError, ValueError) as e: wrong.append(str(e))
    return wrong


# --- faults that nobody thought of -------------------------------------------------------------------------------------

SWAPPED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
           ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}


def variants(node)->list: # of (what, node)
    "List the ways to get one node wrong."
    out = []
    def with_(**kw):
        new = copy.copy(node)
        for k, v in kw.items(): setattr(new, k, v)
        return new
    if isinstance(node, (ast.BinOp, ast.BoolOp)) and type(node.op) in SWAPPED:
        text = isinstance(node, ast.BinOp) and any(isinstance(x, ast.JoinedStr) or isinstance(x, ast.Constant) and isinstance(x.value, str) for x in (node.left, node.right))
        if not text: out.append(with_(op=SWAPPED[type(node.op)]()))
    if isinstance(node, ast.Compare) and len(node.ops)==1 and type(node.ops[0]) in SWAPPED: out.append(with_(ops=[SWAPPED[type(node.ops[0])]()]))
    if isinstance(node, ast.Constant) and type(node.value) in (int, float): out.append(with_(value=node.value+1))
    if isinstance(node, ast.Constant) and type(node.value) is bool: out.append(with_(value=not node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant) and type(node.operand.value) is int:
        out.append(with_(operand=ast.Constant(node.operand.value+1)))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.Invert, ast.USub)): out.append(node.operand)
    if isinstance(node, ast.Attribute) and node.attr in ('mT', 'T') and isinstance(node.ctx, ast.Load): out.append(node.value)
    if isinstance(node, ast.IfExp): out.append(with_(test=ast.UnaryOp(ast.Not(), node.test)))
    if isinstance(node, ast.If) and not any(isinstance(x, ast.Raise) for x in node.body): out.append(with_(test=ast.UnaryOp(ast.Not(), node.test)))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ('clamp_min', 'clamp_max', 'clamp', 'masked_fill', 'abs', 'square'):
        out.append(node.func.value)
    return out


def skipped(node)->bool:
    "Tell what is no code: annotations, docstrings, messages, defaults of what is only shown."
    return isinstance(node, (ast.Raise, ast.Import, ast.ImportFrom, ast.JoinedStr)) or isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def all_faults(text:str, module:str, tests:tuple)->list: # of (Fault, source)
    "List every generic fault of a module, each with the whole source that has it."
    tree = ast.parse(text)
    found = []
    def visit(parent, field, index, node, line):
        if not isinstance(node, ast.AST) or skipped(node): return
        if isinstance(node, (ast.expr, ast.stmt)): line = node if isinstance(node, ast.stmt) else line
        for new in variants(node):
            def put(x):
                if index is None: setattr(parent, field, x)
                else: getattr(parent, field)[index] = x
            before = ast.unparse(line.test if isinstance(line, (ast.If, ast.While)) else line).split('\n')
            put(ast.copy_location(new, node))
            shown = new if node is line else line
            after = ast.unparse(shown.test if isinstance(shown, (ast.If, ast.While)) else shown).split('\n')
            source = ast.unparse(tree)
            put(node)
            a, b = next(((x, y) for x, y in zip(before, after) if x!=y), ('', ''))
            if a!=b: found.append((Fault(f'{module}, line {node.lineno}', module, a.strip(), b.strip(), tests), source))
        for name, value in ast.iter_fields(node):
            if name in ('annotation', 'returns', 'decorator_list'): continue
            if isinstance(value, list):
                for i, x in enumerate(value): visit(node, name, i, x, line)
            else: visit(node, name, None, value, line)
    visit(None, None, None, tree, tree)
    return found


# --- run the tests -----------------------------------------------------------------------------------------------------

def copy_library(folder:Path, root:Path=ROOT):
    "Copy what the tests need."
    leave = shutil.ignore_patterns('__pycache__', '.hypothesis')
    for d in COPIED: shutil.copytree(root/d, folder/d, ignore=leave)
    for p in root.iterdir():
        if p.is_file() and p.suffix in ('.toml', '.ini', '.md', '.py', '.cff') or p.name=='Makefile': shutil.copy(p, folder)


def run_tests(folder:Path, tests:tuple, timeout:float=TIMEOUT)->tuple: # exit code of pytest (0: all pass; None: too slow), seconds
    "Run some tests of a copy in a process of its own, which has all but the library already."
    start = time.perf_counter()
    pid = os.fork()
    if not pid:
        code = 70
        try:
            os.setsid()
            sink = os.open(folder/'pytest.log', os.O_WRONLY|os.O_CREAT|os.O_TRUNC)
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            os.chdir(folder)
            os.environ.update(FSIC_PROGRESS='0', OMP_NUM_THREADS='1', MPLBACKEND='Agg', FSIC_HOME=str(folder/'home'), PYTHONPATH=str(folder))
            os.environ.pop('PYTHONDONTWRITEBYTECODE', None)
            sys.path[:] = [str(folder), *(p for p in sys.path if Path(p or '.').resolve() not in (ROOT, ROOT/'tests', ROOT/'tools'))]
            sys.dont_write_bytecode = False                          # modules without the fault are compiled once
            import pytest
            from hypothesis import Phase, settings               # a failure is enough, nobody reads the smallest one
            settings.register_profile('mutate', phases=[Phase.explicit, Phase.generate], database=None, deadline=None)
            settings.load_profile('mutate')
            code = pytest.main(['-x', '-q', '--no-header', '-p', 'no:cacheprovider', '--hypothesis-seed=0', *(f'tests/{t}' for t in tests)])
        finally: os._exit(int(code))
    done = 0
    try:
        while not done and time.perf_counter()-start<timeout:
            done, status = os.waitpid(pid, os.WNOHANG)
            if not done: time.sleep(.05)
    finally:                                                             # too slow, or somebody stopped us
        if not done:
            for kill in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError): kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) if done else None, time.perf_counter()-start


class Runner:
    "Put one fault after the other into a copy, and say who survives."
    def __init__(self, folder:Path):
        self.folder = folder
        self.clock = int(time.time())-10**6
        copy_library(folder)
        for name in LOADED: __import__(name)
        import torch
        torch.set_num_threads(1)

    def write(self, module, text):
        "Write a module at a time of its own: Python believes compiled code whose source has the same size and second."
        path = self.folder/'fsic_nb'/f'{module}.py'
        path.write_text(text, encoding='utf-8')
        self.clock += 2
        os.utime(path, (self.clock, self.clock))

    def run(self, tests)->tuple:
        shutil.rmtree(self.folder/'home', ignore_errors=True)
        shutil.rmtree(self.folder/'.hypothesis', ignore_errors=True)
        return run_tests(self.folder, tests)

    def baseline(self, tests):
        "Raise unless the tests pass without a fault."
        code, seconds = self.run(tests)
        if code: raise SystemExit(f'{" ".join(tests)} fail without any fault:\n'+(self.folder/'pytest.log').read_text()[-3000:])
        print(f'{"no fault":50} passed {seconds:5.1f} s  {" ".join(tests)}', flush=True)

    def judge(self, fault, source)->bool: # whether it survives
        "Run a fault's tests on its source."
        old = (self.folder/'fsic_nb'/f'{fault.module}.py').read_text(encoding='utf-8')
        self.write(fault.module, source)
        try: code, seconds = self.run(fault.tests)
        finally: self.write(fault.module, old)
        if code not in (0, 1, 2, None): raise SystemExit(f'{fault.name}: pytest ended with {code}:\n'+(self.folder/'pytest.log').read_text()[-3000:])
        what = 'SURVIVED' if code==0 else 'timeout ' if code is None else 'killed  '
        print(f'{fault.name:50} {what} {seconds:5.1f} s', flush=True)
        if code==0: print(f'    - {fault.old}\n    + {fault.new}', flush=True)
        return code==0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('which', nargs='*', help='modules, or names of faults; default: all')
    p.add_argument('--check', action='store_true', help='run nothing')
    p.add_argument('--random', type=int, default=0, metavar='N', help='N generic faults of each module')
    p.add_argument('--seed', type=int, default=0, help='which ones')
    a = p.parse_args()
    faults, by_module, same = read_list()
    if wrong := check(faults): raise SystemExit('\n'.join(wrong))
    some = [f for f in faults if not a.which or f.module in a.which or f.name in a.which]
    if a.check: return print(f'{len(faults)} faults, each fits the library once')
    if a.random:
        jobs = []
        for m in a.which:
            every = all_faults((ROOT/'fsic_nb'/f'{m}.py').read_text(encoding='utf-8'), m, by_module[m])
            every = [(f, s) for f, s in every if (m, f.old, f.new) not in same]
            jobs += random.Random(a.seed).sample(every, min(a.random, len(every)))
            print(f'{m}: {min(a.random, len(every))} of {len(every)} generic faults', flush=True)
    else: jobs = [(f, f.apply((ROOT/'fsic_nb'/f'{f.module}.py').read_text(encoding='utf-8'))) for f in some]
    if not jobs: raise SystemExit(f'no such fault or module; known are {", ".join(dict.fromkeys([*by_module, *(f.name for f in faults)]))}.')
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))     # the copy goes, and the tests that run
    with tempfile.TemporaryDirectory(prefix='mutate') as d:
        runner = Runner(Path(d))
        runner.baseline(tuple(dict.fromkeys(t for f, _ in jobs for t in f.tests)))
        alive = [f for f, source in jobs if runner.judge(f, source)]
    print(f'{len(jobs)-len(alive)} of {len(jobs)} killed'+(f'; survivors: {", ".join(f.name for f in alive)}' if alive else ''))
    sys.exit(bool(alive))


if __name__=='__main__': main()
