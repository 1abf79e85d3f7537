"""Every command and code block of README.md and data/README.md runs: from the installed wheel, outside the repository.

Commands run as they stand but for what the tables below replace; Python blocks follow in one process, as one program.
"""
import json, re, shlex, shutil
from pathlib import Path

import pytest
from PIL import Image

import first_minutes
from conftest import call
from fsic_nb.studies import DEMO_PHOTOS
from test_demo import cut_voc
from test_package import metadata_of

root = Path(__file__).resolve().parents[1]
PAGES = ['README.md', 'data/README.md']

# What a reader puts in for a word: (word, the tree of real photos that stands for it).
TREES = [('DIR', 'voc'), ('OTHER', 'voc'), ('data/VOCdevkit', 'voc'), ('data/coco', 'coco'), ('pets', 'pets'), (r'labels\.csv', 'csv'),
         ('examples', 'pets'), ('photos', 'pets'), (r'truth\.csv', 'csv')]

# What makes a command short: (where it stands, what is replaced, by what).
SHORTER = [
    # the small network: the default for photographs has tests of its own
    ('labels.csv', r'--out results', '--backbone lite0 --size 64 --out results'),
    ('--data voc', r'^(fsic_(?:demo|train|evaluate)\b(?!.*--(?:backbone|config)).*?--data voc)', r'\1 --backbone lite0'),
    ('fsic_', r'--episodes \d+', '--episodes 2'),
    ('fsic_', r'--config data/', f'--config {root}/data/'),   # a path in a clone
    ('finetune', r'--backbone resnet\d+', '--backbone resnet18 --weights none --size 64 --steps 1'),
    ('bench', r' --scaling', ' --stages metrics')]


# --- what a page holds ------------------------------------------------------------------------------------------------

fence = re.compile(r'^```(\w*)\n(.*?)^```$', re.M|re.S)
inline = re.compile(r'`((?:make|pip|python|fsic_\w+) [^`]+)`')


def line_of(text, position): return text.count('\n', 0, position)+1


def commands(page:str)->list: # of (line, command)
    "The shell commands of a page: the lines of its sh blocks, and those set as code in its text."
    text = fence.sub(lambda m: '\n'*m[0].count('\n'), page)
    found = [(line_of(text, m.start()), m[1]) for m in inline.finditer(text)]
    for m in fence.finditer(page):
        lines = m[2].splitlines() if m[1]=='sh' else []
        found += [(line_of(page, m.start(2))+k, l) for k, l in enumerate(lines)]
    return sorted((k, c) for k, l in found if (c := re.sub(r'(^|\s+)#.*', '', l).strip()))


def program(page:str)->str:
    "The Python blocks of a page as one program, each line where it stands on the page."
    blank = ['']*(page.count('\n')+1)
    for m in fence.finditer(page):
        if m[1]=='python':
            first, lines = line_of(page, m.start(2))-1, m[2].splitlines()
            blank[first:first+len(lines)] = lines
    return '\n'.join(blank)


def unknown(page:str)->list:
    "Blocks that nothing here would run: of another language, or commands in a block that has none (output, a tree)."
    return [f'line {line_of(page, m.start())}' for m in fence.finditer(page)
            if m[1] not in ('', 'sh', 'python') or not m[1] and inline.search(re.sub(r'^\s*(.*)$', r'`\1`', m[2], flags=re.M))]


# --- what a command leaves behind -------------------------------------------------------------------------------------

def judge_the_demo_on_photographs(out, folder):
    "What the quick demo should find on a cut VOC."
    rows = json.loads((folder/'fsic_demo_out'/'results.json').read_text())
    by = {(r['method'], r['shots']): r['map'] for r in rows}
    assert by['simpleshot', 1]>45 and by['simpleshot', 5]>55
    assert {r['method'] for r in rows}=={*DEMO_PHOTOS}                    # photographs have no masks for the oracle
    assert all(by['named', k]>by['ridge-name', k]>by['simpleshot', k] for k in (1, 5))   # the rival stands in the table
    assert all(by['named', k]>by['name-places', k] for k in (1, 5)) and {r['baseline'] for r in rows}=={'named'}
    assert by['name', 1]>by['chance', 1]+20
    assert 'left out of validation' in out and rows[0]['split'].startswith('voc')


JUDGES = {'fsic_demo --data voc': judge_the_demo_on_photographs}   # by what a command begins with


# --- what is done with a command --------------------------------------------------------------------------------------

class Reader:
    "Someone with the installed wheel in an empty folder, and with photos where there are any."
    def __init__(self, python, folder, extras, tree, home):
        self.python, self.folder, self.extras, self.tree = python, folder/'work', extras, tree
        self.env = {'PATH': f'{python.parent}:/usr/bin:/bin', 'FSIC_HOME': str(home)}
        self.folder.mkdir()
        self.helps, self.done = {}, set()

    def call(self, *args): return call(*args, cwd=self.folder, env=self.env)

    def with_places(self, text):
        "Real folders for the words of `TREES`; skips where there are no photos."
        for word, name in TREES:
            place = rf'(?<![\w/.]){word}(?![\w/])'
            if re.search(place, text): text = re.sub(place, str(self.tree(name)), text)
        return text

    def help(self, command):
        "What `--help` says, asked once."
        head = re.match(r'fsic_\w+|python -m fsic_nb(\.\w+| \w+)?|', command)[0]
        if head and head not in self.helps: self.helps[head] = self.call('sh', '-c', f'{head} --help')[0]
        return self.helps.get(head, '')

    def run(self, command):
        "Run a command as it stands, its quick version where there is one, once however often it is named."
        for where, old, new in SHORTER:
            if where in command: command = re.sub(old, new, command)
        command = self.with_places(command)
        if not re.search('--(quick|config)', command) and '--quick' in self.help(command): command += ' --quick'
        if command in self.done: return
        out, failed = self.call('sh', '-c', command)
        assert not failed, f'{command}\n{out}'
        for start, judge in JUDGES.items():
            if command.startswith(start): judge(out, self.folder)
        self.done.add(command)

    def run_python(self, name, page):
        "Run the Python blocks of a page; a traceback has the page's lines."
        source = self.with_places(program(page))
        out, failed = self.call(self.python, '-W', 'ignore', '-c', f'exec(compile({source!r}, {name!r}, "exec"))')
        assert not failed, out


def dry_make(reader, command):
    "Every make target exists and its recipe can be read."
    if not shutil.which('make'): pytest.skip('no make here')
    out, failed = call('make', '-n', *shlex.split(command)[1:], cwd=root)
    assert not failed and out.strip(), out


def known_extra(reader, command):
    "`pip install` names this project and extras that it has; the fixtures have done the rest."
    *options, what = shlex.split(command)[2:]
    found = re.fullmatch(r'(?:\.|fsic_nb)(?:\[([\w,]+)\])?', what)
    assert found and set(options) <= {'-e'}, f'{command}: expected . or fsic_nb, with or without an extra'
    assert {*(found[1] or 'demo').split(',')} <= {*reader.extras}, command


def known_options(reader, command):
    "A tool of the repository is there and its source has these options; it would write into the repository."
    tool, *args = shlex.split(command)[1:]
    assert (root/tool).is_file(), command
    source = (root/tool).read_text(encoding='utf-8')
    assert not [a for a in args if a.startswith('--') and f"'{a}'" not in source], command


# What is done with a command, by what it begins with.
RULES = {'make ': dry_make, 'pip install ': known_extra, 'python tools/': known_options,
         'python -m fsic_nb': Reader.run, 'python -c ': Reader.run, 'fsic_': Reader.run}


def rule(command):
    "The first rule that fits."
    found = [do for start, do in RULES.items() if command.startswith(start)]
    if not found: pytest.fail(f'README has a line that nothing runs: {command!r}; give it a rule in tests/test_readme.py')
    return found[0]


def own_images(folder):
    "Write four labels with five images each, in folders and as a table that lists them."
    own = folder/'own'
    if own.exists(): return own
    for label, colour in dict(cat='red', dog='green', cow='blue', sofa='grey').items():
        (own/label).mkdir(parents=True)
        for k in range(5): Image.new('RGB', (40+k, 40), colour).save(own/label/f'{k}.png')
    (own/'labels.csv').write_text('image,labels\n'+''.join(f'{p.relative_to(own)},{p.parent.name}\n' for p in sorted(own.glob('*/*.png'))))
    return own


# --- the pages --------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def reader(bare, wheel, request, tmp_path_factory, shared_home):
    "One for both pages: what the first has drawn and learnt is there for the second."
    folder = tmp_path_factory.mktemp('reader')
    def tree(name):
        if name in ('pets', 'csv'): return own_images(folder)/dict(pets='', csv='labels.csv')[name]
        photos = request.getfixturevalue('photos')
        if name=='voc' and not (folder/'voc').exists(): cut_voc(photos, folder/'voc', 25)
        return photos/'coco' if name=='coco' else folder/'voc'
    return Reader(bare, folder, metadata_of(wheel).get_all('Provides-Extra'), tree, shared_home)


@pytest.mark.parametrize('name', PAGES)
def test_what_a_page_says_runs(name, reader, subtests):
    page = (root/name).read_text(encoding='utf-8')
    assert not unknown(page), f'{name} has blocks that nothing runs: {unknown(page)}; call them sh or python'
    not_made = []   # by commands that were skipped
    for line, command in commands(page):
        with subtests.test(f'{name}, line {line}: {command}'):
            try: rule(command)(reader, command)
            except pytest.skip.Exception:
                not_made += re.findall(r'--out (\S+)', command)
                raise
    with subtests.test(f'{name}: its Python'):
        if gone := [f for f in not_made if f in program(page)]: pytest.skip(f'{gone[0]} was not made, see above')
        reader.run_python(name, page)


def test_the_first_minutes_are_those_of_commands_that_readme_names():
    readme = (root/'README.md').read_text(encoding='utf-8')
    measured = json.loads(first_minutes.target.read_text())
    assert {goal: [*of] for goal, of in measured.items()}==first_minutes.GOALS
    named = {c for of in measured.values() for c in of} - {first_minutes.NEW, 'python mine.py'}
    assert not [c for c in named if c not in readme] and 'def dot_product' in first_minutes.comparison(readme)
    assert '`mine.py`' in readme


# --- the reader itself ------------------------------------------------------------------------------------------------

PAGE = """Then `make demo`, or `fsic_x` with
`fsic_x --a 1`.

```sh
fsic_y   # a comment

pip install .
```

```python
a = 1
```

```
a tree/
```

```python
assert a==2
```
"""


def test_the_reader_finds_every_command():
    assert commands(PAGE)==[(1, 'make demo'), (2, 'fsic_x --a 1'), (5, 'fsic_y'), (7, 'pip install .')]
    assert not unknown(PAGE)
    assert unknown(PAGE.replace('```sh', '```console'))==['line 4']
    assert unknown(PAGE.replace('a tree/', 'make demo'))==['line 14']


def test_the_reader_fails_where_a_page_does(reader):
    with pytest.raises(pytest.fail.Exception, match="nothing runs: 'conda install x'"): rule('conda install x')
    with pytest.raises(AssertionError, match='line 19'): reader.run_python('PAGE', PAGE)
    reader.run_python('PAGE', PAGE.replace('==2', '==1'))
    for command in ('make dmo', 'pip install ".[demos]"', 'pip install torch', 'python tools/costs.py --nothing',
                    'python tools/nothing.py', 'fsic_evaluate --nothing', 'python -c "import nothing"'):
        with pytest.raises(AssertionError): rule(command)(reader, command)
