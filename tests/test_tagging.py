"A folder of photos into a table of tags: its form, cut anywhere and continued, refused where it is another one's."
import csv, json, os, re, shutil, signal, subprocess, sys, threading, time, tracemalloc
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from fsic_nb.core import FsicError
from fsic_nb import tagging
from fsic_nb.examples import Photos, list_photos
from fsic_nb.tagging import Shortlist, TagForm, explain_shortlist, lock_table, stream_tags, tag_photos


class Fake:
    "A tagger whose probabilities are a function of a file's text; a file that says `bad` cannot be read."
    def __init__(self, tags=('cat', 'dog'), salt='', batch=7, wait=0):
        self.tags_ = list(tags)
        self.thresholds_ = np.full(len(self.tags_), .5)
        self.salt, self.batch, self.wait = salt, batch, wait
        self.decoded = []

    @property
    def confidence_(self): return self
    def thresholds_for(self, threshold, precision):
        return np.full(len(self.tags_), .8 if precision else .5 if threshold=='auto' else threshold)

    def decide(self, p, threshold='auto', precision=None):
        assert np.isfinite(p).all() and p.shape[1]==len(self.tags_)
        if isinstance(threshold, str) and threshold.startswith('top'):
            return p>=np.sort(p, 1)[:, [-int(threshold[3:])]], np.zeros(p.shape, bool)
        cut = self.thresholds_for(threshold, precision)
        return p>=cut, (p<cut) & (p>=cut-.2)

    def p_of(self, path):
        text = Path(path).read_text()
        if text=='bad': raise FsicError(f'{path}: cannot be read as an image (it is bad, "so"); replace it.')
        import hashlib
        digest = hashlib.sha256((self.salt+text).encode()).digest()
        return [digest[i]/255+digest[-1-i]/70000 for i in range(len(self.tags_))]

    def stream(self, images, skip=False, explain=False, thumbs=False):
        for at in range(0, len(images), self.batch):
            some = images.sources[at:at+self.batch]
            p, errors = [], []
            for path in some:
                self.decoded.append(str(path))
                try:
                    p.append(self.p_of(path))
                    errors.append('')
                except FsicError as e:
                    if not skip: raise
                    p.append([np.nan]*len(self.tags_))
                    errors.append(str(e))
            if self.wait: time.sleep(self.wait)
            yield SimpleNamespace(
                names=[str(i) for i in some], p=np.array(p), errors=errors,
                thumbs=[b'' if e or not thumbs else b'JPEG'+Path(i).name.encode() for i, e in zip(some, errors)],
                heats=[{} if e else {0: np.full((2, 3), 7, np.uint8)} for e in errors] if explain else None,
                spoke=[{} if e else {0: [(1, .5)]} for e in errors] if explain else None)


def make(folder, n=40, bad=(), names=None):
    "A folder of files that are called like photos."
    for i in range(n):
        p = folder/(names[i] if names else f'{"ab"[i%2]}/{i:03}.jpg')
        p.parent.mkdir(parents=True, exist_ok=True)
        p.write_text('bad' if i in bad else f'photo {i}')
    return folder

@pytest.fixture
def photos(tmp_path): return make(tmp_path/'photos')

def run(photos, out, tagger=None, **kw): return tag_photos(tagger or Fake(), photos, out, **kw)


# --- the form of the table -----------------------------------------------------------------------------------------------------

def test_the_form(photos, tmp_path):
    tally = run(photos, tmp_path/'t.csv')
    text = (tmp_path/'t.csv').read_bytes().decode()
    lines = text.split('\n')
    assert lines[0]=='image,tags,cat,dog' and lines[-1]=='' and len(lines)==42 and '\r' not in text
    assert all(re.fullmatch(r'[ab]/\d{3}\.jpg,(cat|dog|cat;dog|),\d\.\d{4},\d\.\d{4}', line) for line in lines[1:-1])
    table = pd.read_csv(tmp_path/'t.csv', keep_default_na=False)
    assert list(table.image)==list_photos(photos).names==sorted(table.image)
    for i, r in table.iterrows():
        assert np.allclose([r['cat'], r['dog']], Fake().p_of(photos/r.image), atol=5.1e-5)
        assert r.tags==';'.join(t for t in ('cat', 'dog') if r[t]>=.5)
    tagged = (table.tags!='').sum()
    assert (tally.photos, tally.tagged, tally.new, tally.unreadable)==(40, tagged, 40, 0)
    assert tally.tagged+tally.unsure+tally.untagged==40 and tally.unsure and tally.untagged
    assert re.fullmatch(r'40 photos: \d+ tagged, \d+ unsure, \d+ untagged, 0 unreadable; [\d.,]+ images/s', tally.line())

def test_tags_are_decided_on_what_is_written(tmp_path):
    "A probability that only rounding lifts over the threshold is over it."
    form = TagForm(Fake(), .5)
    a, b = form.rows(['a', 'b'], np.array([[.49996, .49994], [.50004, np.nextafter(.5, 0)]]), ['', ''])
    assert (a.tags, b.tags)==(['cat'], ['cat', 'dog']) and form.row(a)==b'a,cat,0.5000,0.4999\n'

NAMES = ['a,b.jpg', 'say "x".jpg', 'line\nend.jpg', 'return\r.jpg', 'ünï/日本.jpg', ' blank .jpg', '=1+1.jpg', 'a;b.jpg', '"\n".jpg', "o'.jpg"]

def test_names_of_any_kind(tmp_path):
    photos = make(tmp_path/'p', len(NAMES), names=NAMES)
    run(photos, tmp_path/'t.csv')
    with open(tmp_path/'t.csv', encoding='utf-8', newline='') as f: rows = list(csv.reader(f))
    assert [r[0] for r in rows[1:]]==sorted(NAMES) and {len(r) for r in rows}=={4}
    assert sorted(pd.read_csv(tmp_path/'t.csv').image)==sorted(NAMES)
    whole = (tmp_path/'t.csv').read_bytes()
    for cut in range(1, len(whole)):
        (tmp_path/'t.csv').write_bytes(whole[:cut])
        run(photos, tmp_path/'t.csv')
        assert (tmp_path/'t.csv').read_bytes()==whole, cut

@pytest.mark.skipif(sys.platform!='linux', reason='names are bytes on Linux only')
def test_a_name_that_is_no_utf8(tmp_path):
    (tmp_path/'p').mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path/'p')+b'/caf\xe9.jpg')).write_text('x')
    for done in (1, 0):
        assert run(tmp_path/'p', tmp_path/'t.csv').new==done
    assert (tmp_path/'t.csv').read_text(encoding='utf-8').startswith('image,tags,cat,dog\ncaf\\udce9.jpg,')

def test_tags_of_any_kind(photos, tmp_path):
    tags = ['a,b', 'say "so"', 'ünï', 'a b']
    run(photos, tmp_path/'t.csv', Fake(tags))
    assert list(pd.read_csv(tmp_path/'t.csv').columns)==['image', 'tags', *tags] and run(photos, tmp_path/'t.csv', Fake(tags)).new==0

@pytest.mark.parametrize('how', [dict(threshold=.7), dict(threshold='top1'), dict(precision=.9)])
def test_thresholds(photos, tmp_path, how):
    run(photos, tmp_path/'t.csv', **how)
    table = pd.read_csv(tmp_path/'t.csv', keep_default_na=False)
    many = table.tags.str.split(';').map(lambda t: len([x for x in t if x]))
    if 'threshold' in how and how['threshold']=='top1': assert set(many)=={1}
    else: assert list(many)==list((table[['cat', 'dog']]>=(.8 if 'precision' in how else .7)).sum(axis=1))
    assert run(photos, tmp_path/'t.csv', **how).new==0
    with pytest.raises(FsicError, match='another threshold'): run(photos, tmp_path/'t.csv')

def test_unreadable(tmp_path):
    photos = make(tmp_path/'p', bad=(20, 21, 39))
    with pytest.raises(FsicError, match='a/020.jpg: cannot be read'): run(photos, tmp_path/'t.csv')
    assert pd.read_csv(tmp_path/'t.csv').columns[-1]=='dog'
    with pytest.raises(FsicError, match='cannot be read'): run(photos/'a'/'020.jpg', tmp_path/'none.csv')
    assert not (tmp_path/'none.csv').exists()
    fake = Fake()
    tally = run(photos, tmp_path/'t.csv', fake, skip=True)                 # the rows so far are kept
    assert 7<=40-tally.new<=20 and len(fake.decoded)==tally.new+2
    table = pd.read_csv(tmp_path/'t.csv', keep_default_na=False)
    assert list(table.columns)==['image', 'tags', 'cat', 'dog', 'error'] and len(table)==40
    wrong = table[table.error!='']
    assert sorted(wrong.image)==['a/020.jpg', 'b/021.jpg', 'b/039.jpg'] and set(wrong.tags)=={''} and set(wrong['cat'])=={''}
    assert all('cannot be read as an image (it is bad, "so")' in e and '\n' not in e for e in wrong.error)
    assert tally.unreadable==3 and '3 unreadable' in tally.line()
    run(photos, tmp_path/'all.csv', skip=True)
    assert (tmp_path/'all.csv').read_bytes()==(tmp_path/'t.csv').read_bytes()
    with pytest.raises(FsicError, match='begun with --skip-unreadable'): run(photos, tmp_path/'t.csv')


# --- cut and continued ---------------------------------------------------------------------------------------------------------

@settings(max_examples=40, deadline=None)
@given(st.data())
def test_cut_anywhere_and_continued(tmp_path_factory, data):
    tmp = tmp_path_factory.mktemp('cut')
    photos = make(tmp/'p', data.draw(st.integers(1, 23)), bad=data.draw(st.sets(st.integers(0, 22), max_size=3)))
    run(photos, tmp/'t.csv', skip=True)
    whole = (tmp/'t.csv').read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    (tmp/'t.csv').write_bytes(whole[:cut])
    fake = Fake(batch=data.draw(st.integers(1, 9)))
    tally = run(photos, tmp/'t.csv', fake, skip=True)
    assert (tmp/'t.csv').read_bytes()==whole
    there = max(whole[:cut].count(b'\n')-1, 0)                       # rows that are not computed again, but for the two ends
    assert tally.new==tally.photos-there and len(fake.decoded)==tally.new+min(there, 2)
    shutil.rmtree(tmp)

def test_nothing_to_do(photos, tmp_path, capsys):
    run(photos, tmp_path/'t.csv')
    before = (tmp_path/'t.csv').stat()
    fake = Fake()
    tally = run(photos, tmp_path/'t.csv', fake)
    assert 'has 40 rows of 40 already; nothing to do' in capsys.readouterr().out and len(fake.decoded)==2
    assert (tmp_path/'t.csv').stat().st_mtime_ns==before.st_mtime_ns and tally.photos==40 and 'images/s' not in tally.line()

def cut(out, n):
    "Keep the heading and n rows."
    out.write_bytes(b''.join(out.read_bytes().splitlines(keepends=True)[:n+1]))
    return out.read_bytes()

def change(p, text): p.write_text(text)

OTHER = {
    'other examples': (lambda p, o: None, dict(tagger=Fake(salt='x')), 'has other probabilities for a/000.jpg'),
    'other tags': (lambda p, o: None, dict(tagger=Fake(['cat', 'cow'])), 'has other tags'),
    'more tags': (lambda p, o: None, dict(tagger=Fake(['cat', 'dog', 'cow'])), 'has other tags'),
    'threshold': (lambda p, o: None, dict(threshold=.9), 'another threshold'),
    'precision': (lambda p, o: None, dict(precision=.9), 'another threshold'),
    'a photo before': (lambda p, o: change(p/'a'/'0.jpg', 'new'), {}, r'row 1 is not of a/0\.jpg'),
    'a photo within': (lambda p, o: change(p/'a'/'0041.jpg', 'new'), {}, r'row 4 is not of a/0041\.jpg'),
    'a photo is gone': (lambda p, o: (p/'a'/'004.jpg').unlink(), {}, r'row 3 is not of a/006\.jpg'),
    'fewer photos': (lambda p, o: [q.unlink() for q in list_photos(p) and sorted(p.rglob('*.jpg'))[9:]], {}, 'has rows of other photos'),
    'the first photo is another': (lambda p, o: change(p/'a'/'000.jpg', 'new'), {}, 'other probabilities for a/000.jpg'),
    'the last row\'s photo is another': (lambda p, o: change(p/'a'/'018.jpg', 'new'), {}, 'other probabilities for a/018.jpg'),
    'a cell was edited': (lambda p, o: change(o, o.read_text().replace('.jpg,cat,', '.jpg,dog,', 1)), {}, 'is not what this command writes'),
    'a number was edited': (lambda p, o: change(o, re.sub(r'0\.(\d{4})\n', r'.\1\n', o.read_text(), count=1)), {}, 'is not what this command writes'),
    'a cell is no number': (lambda p, o: change(o, o.read_text()[:-8]+',high\n'), {}, r'row 10 \(a/018.jpg\) is not what'),
    'a row is missing': (lambda p, o: change(o, ''.join(o.read_text().splitlines(True)[:3]+o.read_text().splitlines(True)[4:])), {}, 'row 3 is not of a/004.jpg'),
    'saved by a spreadsheet': (lambda p, o: o.write_bytes(o.read_bytes().replace(b'\n', b'\r\n')), {}, 'has other tags'),
    'no table': (lambda p, o: change(o, 'dear diary'), {}, 'is no table of tags'),
    'binary': (lambda p, o: o.write_bytes(b'\x89PNG\r\n\x1a\n"\0\xff'*9), {}, 'has other tags|is no table'),
}

@pytest.mark.parametrize('case', OTHER)
def test_another_table_is_left_alone(photos, tmp_path, case):
    do, kw, said = OTHER[case]
    out = tmp_path/'t.csv'
    run(photos, out)
    cut(out, 10)
    do(photos, out)
    before = out.read_bytes()
    with pytest.raises(FsicError, match=said) as e: run(photos, out, **kw)
    assert str(e.value).startswith(f'{out}: ') and 'name another --out, or delete it' in str(e.value)
    assert out.read_bytes()==before

def test_photos_may_be_added_at_the_end(photos, tmp_path):
    run(photos, tmp_path/'t.csv')
    change(photos/'z.jpg', 'new')
    assert run(photos, tmp_path/'t.csv').new==1

def test_a_heading_without_rows(photos, tmp_path):
    run(photos, tmp_path/'w.csv')
    for n in (0, 5, len('image,tags,cat,dog\n'), len('image,tags,cat,dog\n')+9):
        (tmp_path/'t.csv').write_bytes((tmp_path/'w.csv').read_bytes()[:n])
        run(photos, tmp_path/'t.csv')
        assert (tmp_path/'t.csv').read_bytes()==(tmp_path/'w.csv').read_bytes()

def test_order_is_kept_and_each_photo_is_decoded_once(photos, tmp_path):
    fake = Fake(batch=3)
    run(photos, tmp_path/'t.csv', fake)
    assert fake.decoded==[str(photos/n) for n in list_photos(photos).names]

def test_out_may_lie_among_the_photos(photos):
    run(photos, photos/'tags.csv')
    assert run(photos, photos/'tags.csv').new==0

def test_out_that_cannot_be_written(photos, tmp_path):
    for out in (photos, photos/'a'/'000.jpg'/'t.csv'):
        fake = Fake()
        with pytest.raises(FsicError, match='no file can be written there'): run(photos, out, fake)
        assert not fake.decoded

def test_a_full_disk(photos, tmp_path, monkeypatch):
    run(photos, tmp_path/'w.csv')
    real, room = os.write, [400]
    def write(fd, data):
        room[0] -= len(data)
        if room[0]<0: raise OSError(28, 'No space left on device')
        return real(fd, data)
    with monkeypatch.context() as m:
        m.setattr(tagging.os, 'write', write)
        with pytest.raises(FsicError, match='the disk is full'): run(photos, tmp_path/'t.csv')
    assert run(photos, tmp_path/'t.csv').new<40
    assert (tmp_path/'t.csv').read_bytes()==(tmp_path/'w.csv').read_bytes()

def test_a_short_write_is_finished(photos, tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(tagging.os, 'write', lambda fd, data: real(fd, data[:5]))
    run(photos, tmp_path/'t.csv')
    assert len(pd.read_csv(tmp_path/'t.csv'))==40

SCRIPT = '''
import sys
sys.path.insert(0, {tests!r})
from test_tagging import Fake, tag_photos
tag_photos(Fake(batch=2, wait=.02), sys.argv[1], sys.argv[2])
'''

def start(photos, out):
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get('PYTHONPATH', '')])}
    return subprocess.Popen([sys.executable, '-c', SCRIPT.format(tests=str(Path(__file__).parent)), str(photos), str(out)], env=env,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

@pytest.mark.parametrize('sign', [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_and_continued(photos, tmp_path, sign):
    run(photos, tmp_path/'w.csv')
    whole, out = (tmp_path/'w.csv').read_bytes(), tmp_path/'t.csv'
    p = start(photos, out)
    deadline = time.monotonic()+60
    while not out.exists() or out.stat().st_size<200:
        assert p.poll() is None and time.monotonic()<deadline, p.communicate()
        time.sleep(.005)
    p.send_signal(sign)
    p.communicate()
    part = out.read_bytes()
    assert p.returncode!=0 and whole.startswith(part) and part.endswith(b'\n') and len(part)<len(whole)
    assert run(photos, out).new==40-(part.count(b'\n')-1)
    assert out.read_bytes()==whole

def test_two_at_once_write_one_table(photos, tmp_path):
    run(photos, tmp_path/'w.csv')
    two = [start(photos, tmp_path/'t.csv') for _ in range(2)]
    said = [p.communicate()[0] for p in two]
    assert [p.returncode for p in two]==[0, 0] and (tmp_path/'t.csv').read_bytes()==(tmp_path/'w.csv').read_bytes()
    assert any('nothing to do' in s for s in said), said

def test_a_second_command_says_that_it_waits(photos, tmp_path, capsys):
    with lock_table(tmp_path/'t.csv'):
        t = threading.Thread(target=run, args=(photos, tmp_path/'t.csv'))
        t.start()
        time.sleep(.5)
        assert t.is_alive() and not (tmp_path/'t.csv').exists()
    t.join(20)
    assert 'another command is writing it; waiting' in capsys.readouterr().out and len(pd.read_csv(tmp_path/'t.csv'))==40

def test_memory_is_constant(tmp_path):
    "Ten times as many photos need the names more, and nothing else."
    class Quick(Fake):
        def stream(self, images, skip=False, explain=False, thumbs=False):
            for at in range(0, len(images), 50):
                n = len(images.sources[at:at+50])
                yield SimpleNamespace(p=np.random.default_rng(at).random((n, 2)).round(4), errors=['']*n,
                                      thumbs=[b'x'*2000]*n, heats=[{}]*n, spoke=[{}]*n)
    def peak(n):
        photos, short = Photos(*[[f'{i:06}.jpg' for i in range(n)]]*2), Shortlist(tmp_path/f'{n}.csv', 50)
        tracemalloc.start()
        for _ in stream_tags(TagForm(Quick()), photos, tmp_path/f'{n}.csv', short): pass
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top
    peak(100)
    few, many = peak(2000), peak(20000)
    assert many-few<18000*250, (few, many)                     # a name and a path
    lines = (tmp_path/'.20000.csv.photos.jsonl').read_text().count('thumb')
    assert 50<=lines<50*(1+np.log(20000/50))*1.3, lines


# --- what a report needs ----------------------------------------------------------------------------------------------------------

def shortlist(photos, out, size=10, tagger=None, skip=True):
    short = Shortlist(out, size)
    form = TagForm(tagger or Fake(), skip=skip)
    return short, form, list(stream_tags(form, list_photos(photos), out, short))

def test_the_least_certain(photos, tmp_path):
    short, form, rows = shortlist(photos, tmp_path/'t.csv')
    fake = form.tagger
    found = explain_shortlist(short, form, list_photos(photos))
    margins = {r.image: min(abs(x-.5) for x in r.p) for r in rows}
    assert {x.row.image for x in found}=={*sorted(margins, key=margins.get)[:10]} and len(fake.decoded)==40
    assert [x.row.image for x in found]==sorted(x.row.image for x in found)
    for x in found:
        assert x.thumb==b'JPEG'+Path(x.row.image).name.encode() and x.spoke=={0: [(1, .5)]}
        assert x.heats[0].tolist()==[[7]*3]*2 and x.heats[0].dtype==np.uint8

def test_all_photos_where_they_are_few_also_the_unreadable(tmp_path):
    photos = make(tmp_path/'p', 8, bad=(3,))
    short, form, rows = shortlist(photos, tmp_path/'t.csv')
    found = explain_shortlist(short, form, list_photos(photos))
    assert [x.row.image for x in found]==list_photos(photos).names and [x.thumb==b'' for x in found].count(True)==1
    assert len(explain_shortlist(shortlist(photos, tmp_path/'u.csv', 7)[0], form, list_photos(photos)))==7
    assert not any(x.row.error for x in explain_shortlist(shortlist(photos, tmp_path/'v.csv', 7)[0], form, list_photos(photos)))

@pytest.mark.parametrize('n', [0, 1, 200, 700, 1500, 10**6])
def test_what_a_cut_has_lost_is_made_again(photos, tmp_path, n):
    short, form, _ = shortlist(photos, tmp_path/'t.csv')
    def plain(found): return [(x.row.image, x.thumb, {k: h.tolist() for k, h in x.heats.items()}, x.spoke) for x in found]
    want = plain(explain_shortlist(short, form, list_photos(photos)))
    cut(tmp_path/'t.csv', 25)
    short.path.write_bytes(short.path.read_bytes()[:n])
    short, form, rows = shortlist(photos, tmp_path/'t.csv')
    assert plain(explain_shortlist(short, form, list_photos(photos)))==want
    assert len(form.tagger.decoded)<=15+2+10
    if n>10**5: assert len(form.tagger.decoded)==15+2
    short.path.unlink()                                             # a report that is asked for afterwards
    short, form, rows = shortlist(photos, tmp_path/'t.csv')
    assert plain(explain_shortlist(short, form, list_photos(photos)))==want and len(form.tagger.decoded)==12

def test_what_is_left_of_a_deleted_table_is_not_used(photos, tmp_path):
    short, form, _ = shortlist(photos, tmp_path/'t.csv')
    short.path.write_text('\n{"stale": 1}'+short.path.read_text().replace('"at": ', '"at": 1'))
    (tmp_path/'t.csv').unlink()
    short, form, _ = shortlist(photos, tmp_path/'t.csv')
    found = explain_shortlist(short, form, list_photos(photos))
    assert all(x.thumb==b'JPEG'+Path(x.row.image).name.encode() for x in found) and 'stale' not in short.path.read_text()
