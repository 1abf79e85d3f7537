"The list of faults fits the library, and the tool that tries them tells the dead from the living."
import ast
from pathlib import Path

import pytest

import mutate

root = Path(__file__).resolve().parents[1]

def test_every_fault_fits_the_library_once():
    faults, by_module, same = mutate.read_list()
    assert not mutate.check(faults) and len(faults)>=40 and {f.module for f in faults}<={*by_module}
    text = {m: (root/'fsic_nb'/f'{m}.py').read_text(encoding='utf-8') for m in {f.module for f in faults}}
    for f in faults: compile(f.apply(text[f.module]), f.name, 'exec', ast.PyCF_ONLY_AST)
    for m, old, new in same: assert old!=new and m in by_module

def test_an_entry_that_no_longer_fits_is_named():
    f = mutate.Fault('x', 'metrics', 'import math', 'import cmath', ('test_metrics.py',))
    assert not mutate.check([f])
    for kw, says in ((dict(old='no such line'), 'occurs 0 times in metrics.py'), (dict(old='import'), 'times in metrics.py'), (dict(new='import math'), 'changes nothing'),
                     (dict(tests=('test_none.py',)), 'there is no tests/test_none.py'), (dict(module='none'), 'none.py')):
        assert says in mutate.check([mutate.Fault(**{**vars(f), **kw})])[0]

def test_generic_faults_are_programs_of_one_difference():
    text = 'def f(x, a:int=1):\n    "Add 1."\n    if a<2 and not x.any(): return x.mT@x-1\n    raise ValueError("a"+"b")\n'
    found = mutate.all_faults(text, 'm', ('t.py',))
    sources = [s for _, s in found]
    assert len({*sources})==len(sources)>=7 and ast.unparse(ast.parse(text)) not in sources
    for part in ('a <= 2', 'a < 3', 'or not', 'and x.any()', 'return x @ x - 1', '+ 1', 'x.mT @ x - 2', 'a: int=2'): assert any(part in s for s in sources), part
    assert all('Add 1.' in s and "'a' + 'b'" in s for s in sources)              # neither text nor messages

@pytest.mark.parametrize('body, code', [('assert True', 0), ('assert False', 1), ('import time; time.sleep(60)', None)])
def test_a_run_says_pass_fail_or_too_slow(body, code, tmp_path):
    (tmp_path/'tests').mkdir()
    (tmp_path/'tests'/'test_x.py').write_text(f'def test_x(): {body}\n')
    assert mutate.run_tests(tmp_path, ('test_x.py',), 1 if code is None else 60)[0]==code
