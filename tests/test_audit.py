"`make audit` and `make lowest`: what they say and how they end, with stand-ins for the advisory service."
import json, os, re, subprocess, sys
from pathlib import Path

import pytest

import lowest
from test_package import cfg

root = Path(__file__).resolve().parents[1]
CLEAN = [dict(name='torch', version='2.11.0', vulns=[]), dict(name='fsic-nb', skip_reason='not on PyPI')]
BAD = [*CLEAN, dict(name='pillow', version='10.3.0', vulns=[dict(id='PYSEC-1', fix_versions=['11.0']), dict(id='PYSEC-2', fix_versions=[])])]
NO_NETWORK = "ERROR:pip_audit._cli:requests.exceptions.ConnectionError: Max retries exceeded with url: /pypi/torch/json (NewConnectionError('Name or service not known'))"


def audit(folder, out='', err='', code=0):
    "Run tools/audit.py with a pip-audit that says this."
    (folder/'pip_audit.py').write_text(f'import sys\nprint({out!r})\nprint({err!r}, file=sys.stderr)\nsys.exit({code})')
    p = subprocess.run([sys.executable, root/'tools'/'audit.py'], capture_output=True, text=True, env=dict(os.environ, PYTHONPATH=str(folder)))
    return p.returncode, p.stdout, p.stderr


@pytest.mark.parametrize('answer, code, said', [
    (dict(err=NO_NETWORK, code=1), 3, 'Not audited: no advisory service can be reached;'),
    (dict(err='ValueError: x', code=1), 3, 'Not audited: pip-audit failed (ValueError: x).'),
    (dict(out='null', code=0), 3, 'Not audited: pip-audit failed'),
    (dict(out=json.dumps(dict(dependencies=CLEAN))), 0, '1 packages: no vulnerability is known. Not known to the service: fsic-nb.'),
    (dict(out=json.dumps(dict(dependencies=BAD)), code=1), 1, 'pillow 10.3.0: PYSEC-1; mended in 11.0\npillow 10.3.0: PYSEC-2; no version mends it yet\n2 packages: 2 known')])
def test_an_audit_says_plainly_what_is_known(answer, code, said, tmp_path):
    got, out, err = audit(tmp_path, **answer)
    assert got==code and said in out+err
    if code==3: assert not out and err.count('\n')==1


def test_the_lowest_versions_are_those_of_settings():
    found = dict(c.split('==') for c in lowest.lowest('demo', 'tag', 'train'))
    wanted = [r for k in ('requirements', 'demo_requirements', 'tag_requirements', 'train_requirements') for r in cfg[k].split()]
    assert {re.match(r'[\w.-]+', r)[0] for r in wanted}=={*found}
    assert all(re.match(rf'{re.escape(n)}(>=|==){re.escape(v)}(,|$)', r) for r in wanted for n, v in found.items() if re.match(r'[\w.-]+', r)[0]==n)
    with pytest.raises(SystemExit, match='nothing: no such extra'): lowest.lowest('nothing')


def test_actions_are_pinned_and_may_do_little():
    "A tag can be moved, a commit cannot."
    for p in (root/'.github'/'workflows').glob('*.yml'):
        text = p.read_text(encoding='utf-8')
        uses = re.findall(r'uses: (.*)', text)
        assert uses and all(re.fullmatch(r'[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+(\.\d+)*', u) for u in uses), uses
        assert re.search(r'^permissions: \{contents: read\b', text, re.M)


def test_the_tests_that_the_security_page_names_are_there():
    named = re.findall(r'`(tests/\w+\.py)`', (root/'SECURITY.md').read_text(encoding='utf-8'))
    assert len(named)>10 and not [n for n in named if not (root/n).is_file()]
