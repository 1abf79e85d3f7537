"`fsic_demo` as a user runs it: a process of its own, and what it leaves behind. (On photographs: tests/test_readme.py.)"
import json, os, re, subprocess, sys
from pathlib import Path
import pytest

KEYS = 'data protocol split method shots queries episodes seed map map_ci95 micro_ap macro_f1 micro_f1 seconds'.split()
COMMAND = Path(sys.executable).with_name('fsic_demo')

def fsic_demo(*args, home, command=COMMAND, **kw):
    "Run the console script with its own cache folder."
    env = dict(os.environ, FSIC_HOME=str(home), FSIC_PROGRESS='0')
    return subprocess.run([command, *map(str, args)], env=env, capture_output=True, text=True, timeout=600, **kw)

def numbers(path): return [{k: v for k,v in r.items() if k!='seconds'} for r in json.loads(path.read_text())]

from fsic_nb import cli
from fsic_nb.studies import DEMO

@pytest.fixture(scope='module')
def quick(tmp_path_factory, shared_home):
    "One quick demo."
    d = tmp_path_factory.mktemp('demo')
    p = fsic_demo('--quick', '--out', d/'out', home=shared_home)
    assert p.returncode==0, p.stderr
    return d,p

def test_quick_demo(quick):
    d,p = quick
    rows = json.loads((d/'out'/'results.json').read_text())
    assert [(r['method'], r['shots']) for r in rows]==[(m, k) for k in (1, 5) for m in (*DEMO, 'oracle')]
    assert all(set(KEYS)<=set(r) for r in rows)
    assert all(0<r[k]<=100 for r in rows for k in ('map', 'micro_ap', 'map_ci95'))
    by = {(r['method'], r['shots']): r['map'] for r in rows}
    assert by['simpleshot', 5]>by['simpleshot', 1]>15                     # well above the share of positives
    assert all(by['refined', k]>by['logistic', k] for k in (1, 5))        # even after a minute's training
    assert {r['baseline'] for r in rows}=={'refined'} and by['chance', 1]<by['simpleshot', 1]-5
    assert 'ML-SimpleShot' in p.stdout and '5-shot mAP' in p.stdout
    for f in ('episode.png', 'lcm.png', 'results.png'):
        assert (d/'out'/f).read_bytes()[:4]==b'\x89PNG' and (d/'out'/f).stat().st_size<=150_000

def test_the_same_seed_gives_the_same_numbers_from_the_cache(quick, shared_home):
    "By the other command: the same episodes, features and runs."
    d,_ = quick
    names = ','.join(m for m in (*DEMO, 'oracle') if m!='refined')
    p = fsic_demo('--quick', '--method', names, '--baseline', 'refined', '--out', d/'other.json', home=shared_home, command=COMMAND.with_name('fsic_evaluate'))
    assert p.returncode==0, p.stderr
    assert p.stdout.count('steps, cached')==5                             # wagp, paper, paper-best twice, refined
    assert re.search(r'^features .*\(cached\)$', p.stdout, re.M), p.stdout
    def by_name(path): return sorted(numbers(path), key=lambda r: (r['shots'], r['method']))
    assert by_name(d/'other.json')==by_name(d/'out'/'results.json')

@pytest.mark.parametrize('args,says', [(['--data', 'voc'], 'needs --root'), (['--data', 'voc', '--root', 'nowhere'], 'nowhere'),
                                       (['--data', 'voc', '--root', '.'], 'VOC2007'), (['--data', 'coco'], '--data coco needs --root'), (['--data', 'pets'], "--data pets: use 'scenes', 'voc'")])
def test_errors_are_one_line_and_leave_nothing(args, says, tmp_path, monkeypatch, capsys):
    work = tmp_path/'work'; work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv('FSIC_HOME', str(tmp_path/'home'))
    monkeypatch.setattr(sys, 'argv', ['fsic_demo', *args])
    with pytest.raises(SystemExit) as e: cli.fsic_demo()
    err = capsys.readouterr().err
    assert e.value.code==2 and err.startswith('error: ') and err.count('\n')==1 and says in err, err
    assert not list(work.iterdir()) and not (tmp_path/'home').exists()

def test_an_error_ends_the_process_with_two(tmp_path):
    p = fsic_demo('--data', 'voc', home=tmp_path/'home', cwd=tmp_path)
    assert p.returncode==2 and p.stderr.startswith('error: ') and p.stderr.count('\n')==1 and 'needs --root' in p.stderr, p.stderr

def cut_voc(photos:Path, root:Path, most:int):
    "A copy of the photos' VOC tree with at most `most` strictly usable pictures a label: lists rewritten, files linked."
    from fsic_nb.data import select
    from fsic_nb.voc import VOC_NAMES, VOC_SPLIT, read_voc
    images = read_voc(photos/'voc')
    ids = {i for part in ('train', 'val', 'test') for task in VOC_SPLIT.tasks(part) for u in [select(images, task)]
           for c in images.index(task) for i in u[images.labels[u,c]][:most]}
    stems = {images.paths[i].stem for i in ids}
    for year in ('VOC2007', 'VOC2012'):
        old,new = photos/'voc'/year,root/year
        for sub in ('JPEGImages', 'Annotations', 'ImageSets/Main'): (new/sub).mkdir(parents=True)
        for f in (old/'ImageSets'/'Main').glob('*.txt'):
            (new/'ImageSets'/'Main'/f.name).write_text(''.join(l+'\n' for l in f.read_text().splitlines() if l.split()[0] in stems))
        for s in stems:
            for sub,ext in (('JPEGImages', 'jpg'), ('Annotations', 'xml')):
                if (f:=old/sub/f'{s}.{ext}').exists(): (new/sub/f.name).symlink_to(f.resolve())
    return root
