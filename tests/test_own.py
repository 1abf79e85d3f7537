"Images of one's own on the command line: folders, a table and COCO files as people have them, from the error that helps to the table of results."
import contextlib, inspect, io, json, os, re, subprocess, sys
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from fsic_nb import cli
from fsic_nb.core import rng
from fsic_nb.files import read_json, write_json
from fsic_nb.protocols import READING, Options

SMALL = dict(backbone='lite0', size=64)
HUES = dict(cat=(200, 40, 40), dog=(40, 200, 40), cow=(40, 40, 200), horse=(200, 200, 40), bird=(200, 40, 200), boat=(40, 200, 200), bus=(220, 220, 220), car=(90, 90, 90))

@pytest.fixture(scope='module', autouse=True)
def cache(tmp_path_factory):
    old, os.environ['FSIC_HOME'] = os.environ.get('FSIC_HOME'), str(tmp_path_factory.mktemp('home'))
    yield
    os.environ.pop('FSIC_HOME') if old is None else os.environ.update(FSIC_HOME=old)

def draw(path, label, i):
    a = rng('own', label, i).integers(0, 90, (48, 48, 3))
    a[8:40, 8:40] += np.array(HUES.get(label, (120, 60, 60)))//2
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(a.clip(0, 255).astype(np.uint8)).save(path)

def pets(folder, **each):
    "A folder for each label."
    for label, n in each.items():
        for i in range(n): draw(folder/'pets'/label/f'{i}.png', label, i)
    return str(folder/'pets')

def table(folder, n=8):
    "labels.csv and the images beside it."
    names = [f'{i}.png' for i in range(2*n)]
    for i, f in enumerate(names): draw(folder/f, ('cat', 'dog')[i%2], i)
    (folder/'labels.csv').write_text('image,label\n'+''.join(f'{f},{("cat", "dog")[i%2]}\n' for i, f in enumerate(names)))
    return folder

def own_coco(folder, each=7):
    names = ['person', 'helmet', 'vest']
    files = [f'{i}.png' for i in range(3*each)]
    for i, f in enumerate(files): draw(folder/'images'/f, names[i%3], i)
    (folder/'annotations').mkdir()
    write_json(folder/'annotations'/'instances_all.json', dict(images=[dict(id=i, file_name=f, width=48, height=48) for i, f in enumerate(files)],
        categories=[dict(id=i+1, name=n) for i, n in enumerate(names)],
        annotations=[dict(id=i, image_id=i, category_id=i%3+1, bbox=[8, 8, 32, 32], area=1024, iscrowd=0) for i in range(len(files))]))
    return str(folder)

def run(name, **options):
    "What a command prints, and what it says on stderr if it stops."
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try: getattr(cli, f'fsic_{name}')(**options)
        except SystemExit as e: assert e.code==(2 if err.getvalue() else 0), err.getvalue()
    assert err.getvalue().count('\n')<=1, err.getvalue()
    return out.getvalue(), err.getvalue()

def evaluate(tmp_path, **options):
    out = tmp_path/'r.json'
    said, error = run('evaluate', **{**SMALL, 'method': 'protonet', 'shots': '1', 'episodes': 3, 'out': str(out), **options})
    return said, error, read_json(out) if out.exists() else None


# --- labels with few images --------------------------------------------------------------------------------------------

def test_three_images_a_label(tmp_path):
    "The error names an option that exists, and with it a table comes out."
    root = pets(tmp_path, cat=3, dog=3, horse=3)
    said, error, rows = evaluate(tmp_path, data='folder', root=root)
    assert 'cat has 3, dog has 3, horse has 3' in error and 'with --shots 1 --queries 2 all labels can be drawn' in error and rows is None
    assert 'labels: cat 3, dog 3, horse 3' in said and 'no --split: every label is a test label' in said
    said, error, rows = evaluate(tmp_path, data='folder', root=root, queries=2)
    assert not error and [(r['method'], r['queries'], r['split']) for r in rows]==[(m, 2, 'all labels') for m in ('simpleshot', 'protonet')]
    assert 'ML-ProtoNet' in said

def test_a_label_with_too_few_images_is_left_out_when_asked(tmp_path):
    root = pets(tmp_path, cat=2, dog=6, horse=6)
    said, error, rows = evaluate(tmp_path, data='folder', root=root)
    assert 'cat has 2' in error and 'with --shots 1 --queries 1 all labels can be drawn; with --few drop cat (2 images) would be left out' in error
    said, error, rows = evaluate(tmp_path, data='folder', root=root, few='drop')
    assert '1-shot: 2 of 3 test labels have images enough: dog, horse; left out: cat (2 images)' in said
    assert rows[0]['split']=='all labels (2 labels)'
    error = evaluate(tmp_path, data='folder', root=root, few='drop', shots='9')[1]
    assert 'fewer than two test labels have the 13 images of a 9-shot episode; use fewer --shots or --queries' in error

@pytest.mark.parametrize('each', [dict(cat=9, dog=5, cow=4), dict(cat=3, dog=3), dict(cat=2, dog=1, cow=9), dict(cat=9, dog=9, cow=1)])
@pytest.mark.parametrize('shots', ['1', '5'])
def test_what_an_error_recommends_works(tmp_path, each, shots):
    root = pets(tmp_path, **each)
    error = evaluate(tmp_path, data='folder', root=root, shots=shots)[1]
    if not error: return
    for tried in re.findall(r'--shots \d(?: --queries \d)?', error):
        words = tried.split()
        options = dict(zip((w[2:] for w in words[::2]), words[1::2]))
        if 'queries' in options: options['queries'] = int(options['queries'])
        assert not evaluate(tmp_path, data='folder', root=root, **options)[1], tried
    assert '--few drop' not in error or not evaluate(tmp_path, data='folder', root=root, shots=shots, few='drop')[1]
    assert '--' in error or 'add images' in error

def test_a_single_label(tmp_path):
    "Alone it says nothing; beside other images it is asked about with them."
    root = pets(tmp_path, cat=8)
    assert 'cat is the only test label, so every query image carries it and every method scores 100 %' in evaluate(tmp_path, data='folder', root=root)[1]
    pets(tmp_path, dog=8)
    write_json(split := tmp_path/'one.json', dict(test=['cat']))
    said, error, rows = evaluate(tmp_path, data='folder', root=root, split=str(split))
    assert '4 images without it are queries, too (as with --protocol masked --negatives 4)' in said and rows[0]['protocol']=='masked'
    asked = evaluate(tmp_path, data='folder', root=root, split=str(split), protocol='masked', negatives=4)[2]
    assert [r['map'] for r in asked]==[r['map'] for r in rows]


# --- splits ------------------------------------------------------------------------------------------------------------

def test_a_split_of_test_labels_only(tmp_path):
    root = pets(tmp_path, cat=6, dog=6, cow=6)
    write_json(split := tmp_path/'mine.json', dict(test=['cat', 'dog']))
    rows = evaluate(tmp_path, data='folder', root=root, split=str(split))[2]
    assert {r['split'] for r in rows}=={'mine'}
    write_json(split, dict(test=['cat', 'dgo']))
    assert "no label is called 'dgo'; did you mean dog" in evaluate(tmp_path, data='folder', root=root, split=str(split))[1]
    write_json(split, dict(tests=['cat']))
    assert 'such as {"test": ["cat", "dog"]}' in evaluate(tmp_path, data='folder', root=root, split=str(split))[1]
    assert 'no split is called' in evaluate(tmp_path, data='folder', root=root, split='mine')[1]

def test_training_without_a_split_takes_all_labels(tmp_path, monkeypatch):
    "And evaluation of such a run says that no label is unseen."
    monkeypatch.chdir(tmp_path)
    root = pets(tmp_path, cat=6, dog=6, cow=6, horse=6)
    said, error = run('train', data='folder', root=root, out='run', method='wagp', quick=True, **SMALL)
    assert not error and 'no --split: every label is a training label' in said
    assert json.loads(Path('run/about.json').read_text())['train']==['cat', 'cow', 'dog', 'horse']
    said, error = run('evaluate', run='run', data='folder', root=root, shots='1', episodes=2, out='r.json')
    assert not error and '4 test labels are not unseen' in said

@pytest.mark.parametrize('name, more', [('train', dict(split='tests.json')), ('finetune', {})])
def test_training_without_training_labels_shows_a_split(tmp_path, name, more, monkeypatch):
    "It can be copied into a file as it stands."
    monkeypatch.chdir(tmp_path)
    root = pets(tmp_path, cat=6, dog=6, cow=6, horse=6)
    Path('tests.json').write_text('{"test": ["cat", "dog"]}')
    error = run(name, data='folder', root=root, out='run', **more, **SMALL)[1]
    shown = re.search(r'\{.*\}', error)[0]
    assert '--split' in error and sum(map(len, json.loads(shown).values()))==4 and not Path('run').exists()
    Path('copied.json').write_text(shown)
    short = dict(quick=True) if name=='train' else dict(backbone='test_resnet', weights='none', steps=1, every=1, max_images=8, batch=1)
    said, error = run(name, data='folder', root=root, split='copied.json', **{'method': 'wagp', 'out': 'run', **SMALL, **short})
    assert not error and 'fsic_evaluate --run run' in said

def test_methods_that_need_training_are_refused_with_both_remedies(tmp_path):
    root = pets(tmp_path, cat=6, dog=6)
    for method, need in (('refined', 'refined'), ('words', 'wagp')):
        error = evaluate(tmp_path, data='folder', root=root, method=method)[1]
        assert f'{method}: nothing is trained on folder; name a run of {need}' in error and '--split FILE with training labels' in error

def test_labels_that_coco_has_too_stay(tmp_path):
    "`person` is a training label of VOC and COCO; here it is one of the user's own."
    root = own_coco(tmp_path)
    said, error, rows = evaluate(tmp_path, data='coco', root=root)
    assert 'labels: person 7, helmet 7, vest 7' in said and '1-shot: ' in said and not error
    assert {r['split'] for r in rows}=={'all labels'} and 'episodes of 3 labels' in said
    error = evaluate(tmp_path, data='coco', root=root, split='coco_52_12_16')[1]
    assert 'split coco_52_12_16, train: ' in error and '--split FILE, such as {"test": ["person", "helmet", "vest"]}' in error


# --- runs --------------------------------------------------------------------------------------------------------------

def test_a_run_on_own_images_remembers_how(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = pets(tmp_path, cat=8, dog=8, cow=8, horse=8)
    write_json(Path('mine.json'), dict(train=['cat', 'dog'], test=['cow', 'horse']))
    said, error = run('train', data='folder', root=root, method='laso', split='mine.json', queries=3, quick=True, out='run', **SMALL)
    assert not error, error
    about = read_json(Path('run/about.json'))
    assert about['options']==dict(split=str(tmp_path/'mine.json'), queries=3) and about['train']==['cat', 'dog']
    (tmp_path/'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path/'elsewhere')
    rows = evaluate(tmp_path, data='folder', root=root, run=str(tmp_path/'run'), method='', backbone='', size=None)[2]
    assert [(r['method'], r['split'], r['queries']) for r in rows]==[(m, 'mine', 3) for m in ('simpleshot', 'laso')]
    error = run('train', data='folder', root=root, method='laso', split=str(tmp_path/'mine.json'), quick=True, out=str(tmp_path/'run'), **SMALL)[1]
    assert 'holds another run (options is' in error

def test_a_run_is_not_scored_with_other_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = pets(tmp_path, cat=8, dog=8, cow=8, horse=8)
    write_json(Path('mine.json'), dict(train=['cat', 'dog'], test=['cow', 'horse']))
    Path('w.txt').write_text(''.join(f'{n} '+' '.join(map(str, rng(n).random(50).round(3)))+'\n' for n in HUES))
    assert not run('train', data='folder', root=root, method='wagp', split='mine.json', words='w.txt', quick=True, out='run', **SMALL)[1]
    same = dict(data='folder', root=root, run='run', method='', backbone='', size=None)
    assert not evaluate(tmp_path, **same)[1]                        # taken over from the run
    assert 'was made with words' in evaluate(tmp_path, words='glove-50', **same)[1]

def test_a_fine_tuned_run_by_its_module(tmp_path):
    "`python -m fsic_nb.finetune` makes a run that `fsic_evaluate --run` scores, from inside the folder."
    own_coco(tmp_path)
    write_json(tmp_path/'split.json', dict(train=['helmet', 'vest'], test=['person']))
    env = dict(os.environ, FSIC_PROGRESS='0')
    words = '-m fsic_nb.finetune --data coco --root . --split split.json --backbone test_resnet --weights none --steps 2 --every 1 --size 64 --max_images 8 --out run'
    p = subprocess.run([sys.executable, *words.split()], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert p.returncode==0, p.stderr
    assert 'fsic_evaluate --run run' in p.stdout
    words = '-m fsic_nb evaluate --run run --data coco --root . --split split.json --episodes 3 --shots 1 --out r.json'
    p = subprocess.run([sys.executable, *words.split()], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert p.returncode==0, p.stderr
    assert [r['method'] for r in read_json(tmp_path/'r.json')]==['simpleshot', 'paper']


# --- files -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('root', ['labels.csv', '.', './labels.csv'])
def test_from_inside_the_folder(tmp_path, monkeypatch, root):
    monkeypatch.chdir(table(tmp_path))
    said, error, rows = evaluate(tmp_path, data='csv', root=root)
    assert not error and 'labels: cat 8, dog 8' in said and rows

def test_missing_and_broken_images(tmp_path, monkeypatch):
    monkeypatch.chdir(table(tmp_path))
    Path('2.png').unlink()
    Path('4.png').write_bytes(Path('4.png').read_bytes()[:200])
    assert '--files present' in evaluate(tmp_path, data='csv', root='labels.csv')[1]
    said, error, rows = evaluate(tmp_path, data='csv', root='labels.csv', files='present')
    assert not error and re.search('left out: 1 images that cannot be opened, such as .*4.png', said) and 'labels: cat 7, dog 8' in said

def test_a_manifest_is_data(tmp_path, monkeypatch):
    monkeypatch.chdir(table(tmp_path))
    assert not run('prepare', data='csv', root='labels.csv', out='m.jsonl')[1]
    said, error, rows = evaluate(tmp_path, data='manifest', root='m.jsonl')
    assert not error and rows and 'cat 8, dog 8' in said


# --- the demo, and the options of all commands -----------------------------------------------------------------------------

def test_the_demo_ends_in_a_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = pets(tmp_path, cat=6, dog=6, cow=6)
    write_json(Path('split.json'), dict(test=['cat', 'dog', 'cow']))
    said, error = run('demo', data='folder', root=root, split='split.json', quick=True, out='demo', **SMALL)
    assert not error, error
    assert 'left out, since the split has no training labels: paper-best, refined' in said and '5-shot is left out' in said
    assert re.search(r'named \(places \+ examples\) +\d', said)
    assert sorted(p.name for p in Path('demo').iterdir())==['episode.png', 'results.json', 'results.png']

@pytest.mark.parametrize('name', ['demo', 'train', 'evaluate', 'finetune'])
def test_every_command_that_reads_data_has_the_options(name):
    "With the help that stands beside the fields."
    from fastcore.script import anno_parser
    f = cli.COMMANDS[name]
    given = {a.dest: a.help for a in anno_parser(f, name)._actions}
    for field, line in Options.__dataclass_fields__.items():
        assert given.get(field), field
    source = inspect.getsource(Options)
    for field, text in given.items():
        if field in vars(Options()): assert re.search(rf'{field}:.*# {re.escape(cli.without_empty(text)[:40])}', source), field

def test_the_manifest_is_made_with_the_readers_options():
    have = inspect.signature(cli.fsic_prepare).parameters
    assert set(READING)-{'files', 'negatives'}<=set(have) and 'split' not in have
