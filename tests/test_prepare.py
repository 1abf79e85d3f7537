"The check of a data set: unusual images, broken ones, interruption, manifests, and the command."
import hashlib, io, json, os, re, shutil, subprocess, sys, threading, time, types
from pathlib import Path
from unittest.mock import patch as replaced

import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from fsic_nb.core import FsicError
from fsic_nb.data import ImageSet
from fsic_nb.pictures import BITS, SUFFIXES, open_rgb, to_rgb
from fsic_nb.prepare import check_image, find_copies, map_in_order, prepare_data, prepare_tree, read_manifest
from fsic_nb.readers import read_csv, read_folder

PLAIN = Image.fromarray(np.linspace([0, 40, 90], [255, 180, 30], 30)[:, None].repeat(44, 1).astype(np.uint8))   # 44 x 30, upright

def encoded(im, fmt='jpeg', **kw): b = io.BytesIO(); im.save(b, fmt, **kw); return b.getvalue()
def exif(turn): e = Image.Exif(); e[0x0112] = turn; return e
def deep(im): return Image.fromarray(np.asarray(im.convert('L')).astype(np.uint16)*257)

JPEG = encoded(PLAIN)
FINE = {'plain.jpg': JPEG, 'cmyk.jpg': encoded(PLAIN.convert('CMYK')), 'grey.jpg': encoded(PLAIN.convert('L')), 'deep.png': encoded(deep(PLAIN), 'png'),
        'deep.tif': encoded(deep(PLAIN), 'tiff'), 'palette.png': encoded(PLAIN.quantize(8), 'png'), 'see-through.png': encoded(PLAIN.convert('RGBA'), 'png'),
        'animated.gif': encoded(PLAIN, 'gif', save_all=True, append_images=[Image.new('RGB', PLAIN.size, 'red')]*2),
        'animated.webp': encoded(PLAIN, 'webp', save_all=True, append_images=[Image.new('RGB', PLAIN.size, 'red')], lossless=True),
        'turned.jpg': encoded(PLAIN.rotate(90, expand=True), exif=exif(6)), 'wrong suffix.png': JPEG[:-2]+b'\xff\xd9', 'Größe, 日本 «x».jpg': encoded(PLAIN, quality=50)}
BROKEN = {'zero.jpg': (b'', 'the file is empty'), 'cut.jpg': (JPEG[:-60], 'truncated'), 'head.jpg': (JPEG[:20], 'cannot be read as a'),
          'page.jpg': (b'<html>404</html>', 'format that is known'), 'cut.png': (encoded(PLAIN, 'png')[:60], 'cannot be read as a'),
          'floats.tif': (encoded(Image.fromarray(np.ones((4, 4), np.float32)), 'tiff'), 'floating-point'), 'gone.jpg': (None, 'No such file')}

def write(folder, some):
    folder.mkdir(parents=True, exist_ok=True)
    for n, b in some.items():
        if b is not None: (folder/n).write_bytes(b)
    return [folder/n for n in some]

def image_set(paths, name='mine', seed=0):
    y = np.random.default_rng(seed).random((len(paths), 3))<.5
    y[:, 0] |= ~y.any(1)
    return ImageSet(paths, ['a', 'b', 'ü 日'], y, name, dict(made='here'))

class Opened:
    "Counts what is decoded; stops like Ctrl-C after `stop` images."
    def __init__(self, stop=10**9): self.n, self.stop, self.real, self.lock = 0, stop, Image.open, threading.Lock()
    def __call__(self, *args, **kw):
        with self.lock:
            if self.n>=self.stop: raise KeyboardInterrupt
            self.n += 1
        return self.real(*args, **kw)


# --- one image -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', FINE)
def test_unusual_images_are_fine(tmp_path, name):
    p, = write(tmp_path, {name: FINE[name]})
    assert check_image(p)==dict(size=len(FINE[name]), sha256=hashlib.sha256(FINE[name]).hexdigest(), width=44, height=30)
    grey = np.asarray(open_rgb(p).convert('L')).astype(int)            # the gradient of PLAIN, upright: not red, not white, not lying
    assert abs(grey-np.asarray(PLAIN.convert('L')).astype(int)).max()<25

@pytest.mark.parametrize('name', BROKEN)
def test_broken_images_are_named(tmp_path, name):
    b, why = BROKEN[name]
    p, = write(tmp_path, {name: b})
    r = check_image(p, f'some/{name}')
    assert r['broken'].startswith(f'some/{name}: cannot be read') and why in r['broken'] and '\n' not in r['broken'] and 'width' not in r
    assert r['size']==(None if b is None else len(b)) and (r['sha256'] is None)==(b is None)

def test_damaged_exif_is_a_sentence_too():
    "Pillow writes EXIF anew when it turns an image, and fails with `struct.error` on some values."
    import struct
    b = encoded(PLAIN, exif=exif(6))
    with replaced('PIL.ImageOps.exif_transpose', side_effect=struct.error('required argument is not an integer')):
        with pytest.raises(FsicError, match=r'x: cannot be read as an? \w+ \(required argument'): open_rgb(b, name='x')


@pytest.mark.parametrize('suffix, fmt', [('ppm', 'ppm'), ('pgm', 'ppm'), ('pnm', 'ppm'), ('jp2', 'jpeg2000'), ('mpo', 'mpo'), ('avif', 'avif'), ('jfif', 'jpeg')])
def test_formats_of_signs_scans_and_phones(tmp_path, suffix, fmt):
    "GTSRB is .ppm, scanners write .pgm and .jp2, phones .mpo; a folder of them is read."
    many = dict(save_all=True, append_images=[Image.new('RGB', PLAIN.size, 'red')]) if fmt=='mpo' else {}
    p, = write(tmp_path/'sign', {f'x.{suffix}': encoded(PLAIN.convert('L') if suffix=='pgm' else PLAIN, fmt, **many)})
    assert abs(np.asarray(open_rgb(p).convert('L')).astype(int)-np.asarray(PLAIN.convert('L')).astype(int)).max()<25
    assert p.suffix in SUFFIXES and list(read_folder(tmp_path).paths)==[p]

@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 65535), min_size=1, max_size=9), st.sampled_from(['png', 'tiff']))
def test_deep_greys_fill_their_range(values, fmt):
    "The range is the smallest usual one that holds the brightest value; order is kept, 0 is black and the end of the range white."
    a = np.array([values], np.uint16)
    got = np.asarray(open_rgb(encoded(Image.fromarray(a), fmt)))[0, :, 0].astype(int)
    white = min(2**b-1 for b in BITS if 2**b-1>=a.max())
    assert got.tolist()==[v*255//white for v in values]
    for end in (1023, 4095, 16383, 65535): assert np.asarray(to_rgb(Image.fromarray(np.array([[0, end]], np.uint16))))[0, :, 0].tolist()==[0, 255]

def grey_jpeg(w, h): return encoded(Image.new('L', (w, h), 90))

def test_photos_of_phones_are_large_and_bombs_are_refused(recwarn):
    assert open_rgb(grey_jpeg(12_000, 9_000), hint=448).size==(1500, 1125)         # 108 megapixels
    assert open_rgb(grey_jpeg(16_320, 12_240), hint=448).size==(2040, 1530)        # 200
    for bomb in (encoded(Image.new('1', (16_320, 12_240)), 'png'), encoded(Image.new('1', (16_320, 12_240)), 'tiff', compression='group4'), grey_jpeg(17_000, 16_000)):
        with pytest.raises(FsicError, match=r'^x: cannot be read as an image \(Image size .* exceeds limit') as e: open_rgb(bomb, hint=448, name='x')
        assert '\n' not in str(e.value)

HEIC = b'\0\0\0\x18ftypheic\0\0\0\0mif1heic'+bytes(40)

def test_heic_names_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pillow_heif', None)
    for p in write(tmp_path, {'IMG_1.HEIC': HEIC, 'IMG_2.png': HEIC}):
        with pytest.raises(FsicError, match=r'pip install pillow-heif, or convert it to JPEG'): open_rgb(p)
    with pytest.raises(FsicError, match='no image format'): open_rgb(HEIC.replace(b'heic', b'isom'))       # a film

def test_heic_is_read_where_pillow_heif_is(tmp_path, monkeypatch):
    "A stand-in for the package: its images are red. It is registered once."
    from PIL import ImageFile
    calls = []
    class Red(ImageFile.ImageFile):
        format, format_description = 'HEIF', 'stand-in'
        def _open(self): self._size, self._mode = (8, 6), 'RGB'
        def load(self): self.im = Image.new('RGB', self.size, 'red').im; self.pyaccess = None; return Image.Image.load(self)
    def register_heif_opener():
        calls.append(1)
        Image.register_open('HEIF', Red, lambda b: b[4:12]==b'ftypheic')
    monkeypatch.setitem(sys.modules, 'pillow_heif', types.SimpleNamespace(register_heif_opener=register_heif_opener))
    try:
        for p in write(tmp_path, {'IMG_1.HEIC': HEIC, 'IMG_2.png': HEIC}): assert open_rgb(p).getpixel((3, 3))==(255, 0, 0)
        assert calls==[1] and open_rgb(JPEG).size==PLAIN.size
    finally:
        Image.OPEN.pop('HEIF', None); Image.ID.remove('HEIF')

def test_no_other_program_is_started(tmp_path, monkeypatch):
    "Pillow draws PostScript by Ghostscript, wherever a file says that it is some; not here, and not under another name."
    (tmp_path/'bin').mkdir(); gs = tmp_path/'bin'/'gs'
    gs.write_text(f'#!/bin/sh\ntouch {tmp_path}/started\n'); gs.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path/"bin"}{os.pathsep}{os.environ["PATH"]}')
    monkeypatch.setattr('PIL.EpsImagePlugin.gs_binary', None)
    for p in write(tmp_path, {'x.eps': encoded(PLAIN, 'eps'), 'x.png': encoded(PLAIN, 'eps')}):
        with pytest.raises(FsicError, match='no image format that is known here'): open_rgb(p)
    assert not (tmp_path/'started').exists()
    with pytest.raises(Exception): Image.open(tmp_path/'x.png').load()                                    # Pillow alone would
    assert (tmp_path/'started').exists()


# --- many --------------------------------------------------------------------------------------------------------------------

@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 5), max_size=60), st.integers(1, 6))
def test_map_in_order_is_map(xs, workers):
    assert list(map_in_order(lambda k: k+1, xs, workers))==[k+1 for k in xs]

def test_map_in_order_does_not_run_ahead():
    started = []
    it = map_in_order(lambda k: started.append(k), range(1000), 2)
    next(it); time.sleep(.05)
    assert len(started)<=12
    it.close()
    assert len(started)<=12

@pytest.fixture
def tree(tmp_path):
    return write(tmp_path/'tree'/'one', FINE)+write(tmp_path/'tree'/'two', {n: b for n, (b, _) in BROKEN.items()})

@pytest.mark.parametrize('workers', [1, 3])
def test_manifest_and_back(tree, tmp_path, workers):
    s = image_set(tree)
    records = prepare_tree(s, tmp_path/'out'/'m.jsonl', workers)
    assert [r['path'] for r in records]==[p.relative_to(tmp_path/'tree').as_posix() for p in tree]
    assert {Path(r['path']).name for r in records if 'broken' in r}==set(BROKEN)
    lines = [json.loads(l) for l in (tmp_path/'out'/'m.jsonl').read_text(encoding='utf-8').splitlines()]
    assert lines[1:]==records and lines[0]['images']==len(tree) and lines[0]['root']==str(tmp_path/'tree')
    assert sorted(p.name for p in (tmp_path/'out').iterdir() if not p.name.endswith('.lock'))==['m.jsonl']
    back, want = read_manifest(tmp_path/'out'/'m.jsonl'), s.take(range(len(FINE)))
    assert back.paths==want.paths and back.names==want.names and (back.labels==want.labels).all() and back.name=='mine'
    assert back.fingerprint()==want.fingerprint() and back.info['left_out']['broken images']==len(BROKEN)
    shutil.move(tmp_path/'tree', tmp_path/'moved')
    assert all(p.is_file() for p in read_manifest(tmp_path/'out'/'m.jsonl', tmp_path/'moved').paths)

@settings(deadline=None, max_examples=15)
@given(st.lists(st.text(alphabet='aß日.é \'"\\', min_size=1, max_size=6), min_size=1, max_size=6, unique=True), st.integers(0, 9))
def test_any_names_come_back(tmp_path_factory, names, seed):
    d = tmp_path_factory.mktemp('n')
    s = image_set(write(d/'p', {f'{n}.jpg': JPEG for n in names if '\\' not in n} or {'a.jpg': JPEG}), seed=seed)
    prepare_tree(s, d/'m.jsonl')
    assert read_manifest(d/'m.jsonl').paths==s.paths and read_manifest(d/'m.jsonl').fingerprint()==s.fingerprint()

@pytest.mark.skipif(sys.platform!='linux', reason='file names are Unicode here')
def test_names_that_are_no_unicode_come_back(tmp_path):
    p = Path(os.fsdecode(bytes(tmp_path)+b'/gr\xfcn.jpg'))
    try: p.write_bytes(JPEG)
    except OSError: pytest.skip('this file system wants Unicode')
    prepare_tree(image_set([p]), tmp_path/'m.jsonl')
    assert read_manifest(tmp_path/'m.jsonl').paths==[p]

def test_relative_paths(tmp_path, monkeypatch):
    write(tmp_path/'p', {'a.jpg': JPEG}); monkeypatch.chdir(tmp_path)
    prepare_tree(image_set(['p/a.jpg']), 'm.jsonl')
    assert read_manifest('m.jsonl').paths==[tmp_path/'p'/'a.jpg']

def test_interrupted_and_continued(tree, tmp_path):
    s, out = image_set(tree), tmp_path/'m.jsonl'
    want = prepare_tree(s, tmp_path/'want.jsonl')
    decoded = sum(b is not None for b in [*FINE.values(), *(b for b, _ in BROKEN.values())])
    first, again, last = Opened(stop=7), Opened(stop=3), Opened()
    with replaced('PIL.Image.open', first), pytest.raises(KeyboardInterrupt): prepare_tree(s, out, 1)
    assert not out.exists() and (tmp_path/'.m.jsonl.part').exists()
    with open(tmp_path/'.m.jsonl.part', 'a', encoding='utf-8') as f: f.write('{"path": "one/deep.tif", "si')        # as `kill -9` leaves it
    with replaced('PIL.Image.open', again), pytest.raises(KeyboardInterrupt): prepare_tree(s, out, 1)
    with replaced('PIL.Image.open', last): assert prepare_tree(s, out, 1)==want
    assert (first.n, again.n, last.n)==(7, 3, decoded-10) and not (tmp_path/'.m.jsonl.part').exists()
    assert out.read_bytes()==(tmp_path/'want.jsonl').read_bytes()

def test_what_changed_meanwhile_is_checked_again(tree, tmp_path):
    s, out = image_set(tree), tmp_path/'m.jsonl'
    with replaced('PIL.Image.open', Opened(stop=6)), pytest.raises(KeyboardInterrupt): prepare_tree(s, out, 1)
    for n in ('plain.jpg', 'cmyk.jpg'): (tree[0].parent/n).write_bytes(b'spoilt')
    records = {r['path']: r for r in prepare_tree(s, out, 1)}
    assert all('broken' in records[f'one/{n}'] for n in ('plain.jpg', 'cmyk.jpg')) and 'broken' not in records['one/grey.jpg']

def test_a_second_run_of_a_finished_one_looks_again(tree, tmp_path):
    s, out, count = image_set(tree[:3]), tmp_path/'m.jsonl', Opened()
    prepare_tree(s, out)
    with replaced('PIL.Image.open', count): prepare_tree(s, out)
    assert count.n==3

def test_nothing_of_the_users_is_overwritten(tree, tmp_path):
    (tmp_path/'notes.txt').write_text('mine'); s = image_set(tree[:2])
    with pytest.raises(FsicError, match='notes.txt: exists and is no manifest'): prepare_tree(s, tmp_path/'notes.txt')
    with pytest.raises(FsicError, match='is a folder'): prepare_tree(s, tmp_path)
    with pytest.raises(FsicError, match='m.jsonl: no file can be written there'): prepare_tree(s, tmp_path/'notes.txt'/'m.jsonl')
    assert (tmp_path/'notes.txt').read_text()=='mine'

def test_a_full_disk_is_a_sentence(tree, tmp_path):
    import errno
    with replaced('fsic_nb.prepare._line', side_effect=OSError(errno.ENOSPC, 'No space left on device')):
        with pytest.raises(FsicError, match='m.jsonl: cannot be written .the disk is full'): prepare_tree(image_set(tree[:3]), tmp_path/'m.jsonl')
    assert len(prepare_tree(image_set(tree[:3]), tmp_path/'m.jsonl'))==3

def test_one_run_at_a_time(tree, tmp_path):
    from filelock import FileLock
    with FileLock(tmp_path/'.m.jsonl.lock'):
        with pytest.raises(FsicError, match='m.jsonl: another run is writing'): prepare_tree(image_set(tree[:2]), tmp_path/'m.jsonl')

def test_copies(tmp_path):
    paths = write(tmp_path/'p', {'a.jpg': JPEG, 'b.jpg': FINE['grey.jpg'], 'c.jpg': JPEG, 'e.jpg': b'', 'f.jpg': b''})
    assert find_copies(prepare_tree(image_set(paths), tmp_path/'m.jsonl'))==[['a.jpg', 'c.jpg']]     # two empty files are broken, not copies


# --- manifests that are not what they were -------------------------------------------------------------------------------------

def lines(f): return f.read_text(encoding='utf-8').splitlines()
@pytest.mark.parametrize('change, says', [
    (lambda l: l[:-1], 'm.jsonl: is not complete (2 images)'), (lambda l: [], 'is not complete (0'), (lambda l: l[1:], 'm.jsonl, line 1: manifest is missing'),
    (lambda l: [*l[:-1], l[-1][:30]], 'm.jsonl, line 4: not valid JSON'), (lambda l: [*l[:-1], '[]'], 'm.jsonl, line 4: path is missing'),
    (lambda l: [l[0], l[1], l[1], l[3]], 'm.jsonl, line 3: a.jpg is listed already (line 2)'), (lambda l: [l[0].replace('"a"', '"A"'), *l[1:]], "line 2: label 'a' is not among the names"),
    (lambda l: [l[0], l[1].replace('a.jpg', '../a.jpg'), *l[2:]], "line 2: file name '../a.jpg' leads out"), (lambda l: [l[0], l[1].replace('a.jpg', '/a.jpg'), *l[2:]], 'leads out')])
def test_a_spoilt_manifest_names_the_line(tmp_path, change, says):
    f = tmp_path/'m.jsonl'
    prepare_tree(ImageSet(write(tmp_path/'p', {f'{n}.jpg': JPEG for n in 'abc'}), ['a'], np.ones((3, 1)), 'x'), f)
    f.write_text('\n'.join(change(lines(f))), encoding='utf-8')
    with pytest.raises(FsicError, match=re.escape(says)) as e: read_manifest(f)
    assert '\n' not in str(e.value)
    with pytest.raises(FsicError, match='none: cannot be read'): read_manifest(tmp_path/'none')


# --- the command -----------------------------------------------------------------------------------------------------------------

def command(*args, **kw):
    "The command as its entry point calls it."
    return subprocess.run([sys.executable, '-X', 'importtime', ENTRY, *map(str, args)], capture_output=True, text=True, encoding='utf-8',
                          env={**os.environ, 'PYTHONPATH': str(Path(__file__).resolve().parents[1])}, **kw)

@pytest.fixture(scope='module', autouse=True)
def entry(tmp_path_factory):
    "What pip writes for a console script (the installed one may be of another version)."
    global ENTRY
    ENTRY = tmp_path_factory.mktemp('bin')/'fsic_prepare'
    ENTRY.write_text('import sys\nfrom fsic_nb.cli import fsic_prepare\nif __name__=="__main__": sys.exit(fsic_prepare())\n')

@pytest.fixture
def own(tmp_path):
    write(tmp_path/'own'/'p', {**FINE, **{n: b for n, (b, _) in BROKEN.items()}})
    (tmp_path/'own'/'labels.csv').write_text('image,labels\n'+''.join(f'"p/{n}",x;ü\n' for n in [*FINE, *BROKEN]), encoding='utf-8')
    return tmp_path/'own'

def test_what_is_said(own, tmp_path):
    said = []
    assert prepare_data('csv', own, tmp_path/'m.jsonl', say=said.append)==1
    text = '\n'.join(said)
    assert f'whole: {len(FINE)} images, broken: {len(BROKEN)}, copies of another one: 1' in text
    assert [n for n in BROKEN if f'  p/{n}: cannot be read' not in text]==[] and 'the same content: p/plain.jpg, p/wrong suffix.png' in text
    for n in BROKEN: (own/'p'/n).write_bytes(encoded(PLAIN.resize((40, 20+len(n)))))
    assert prepare_data('csv', own, tmp_path/'m.jsonl', say=said.append)==0
    assert read_manifest(tmp_path/'m.jsonl').fingerprint()==read_csv(own).fingerprint()

def test_long_lists_are_cut(tmp_path):
    write(tmp_path/'own', {f'{k:02d}.jpg': b'' for k in range(30)})
    (tmp_path/'own'/'labels.csv').write_text(''.join(f'{k:02d}.jpg,x\n' for k in range(30)))
    said = []
    prepare_data('csv', tmp_path/'own', tmp_path/'m.jsonl', say=said.append)
    assert len([l for l in said if l.startswith('  ')])==20+1 and '  and 10 more, see the manifest' in said

def test_exit_codes_and_help(own, tmp_path):
    "0 whole, 1 broken, 2 unreadable; and neither torch nor matplotlib for any of it."
    p = command('--data', 'csv', '--root', own, '--out', tmp_path/'m.jsonl', cwd=tmp_path)
    assert p.returncode==1 and 'broken: ' in p.stdout and f'manifest: {tmp_path}/m.jsonl' in p.stdout
    assert not re.search(r'\| +(torch|matplotlib)\n', p.stderr)
    for n in BROKEN: (own/'p'/n).write_bytes(JPEG)
    p = command('--data', 'csv', '--root', own, cwd=tmp_path)
    assert p.returncode==0 and (tmp_path/'csv_manifest.jsonl').exists()
    for args, says in ((['--data', 'csv', '--root', 'nowhere.csv'], 'error: nowhere.csv: cannot be read'), (['--data', 'pets', '--root', own], 'error: --data pets: use voc, coco'),
                       (['--data', 'csv'], 'error: --data csv needs --root'), ([], 'error: --data is missing'), (['--data', 'csv', '--root', own, '--workers', '0'], 'error: --workers 0')):
        p = command(*args, cwd=tmp_path)
        assert p.returncode==2 and says in p.stderr and 'Traceback' not in p.stderr, p.stderr[-500:]
    p = command('--help')
    assert p.returncode==0 and '--workers' in p.stdout and 'Check a data set' in p.stdout

def test_the_console_script_is_registered():
    settings = (Path(__file__).resolve().parents[1]/'settings.ini').read_text(encoding='utf-8')
    assert 'fsic_prepare=fsic_nb.cli:fsic_prepare' in settings

def test_no_network_is_touched(own, tmp_path):
    with replaced('socket.socket', side_effect=AssertionError('a socket was opened')):
        assert prepare_data('csv', own, tmp_path/'m.jsonl', say=lambda s: None)==1


# --- the real photographs, where they are --------------------------------------------------------------------------------------------

def test_the_real_photographs(photos, tmp_path):
    said = []
    assert prepare_data('coco', photos/'coco', tmp_path/'coco.jsonl', say=said.append)==0
    s = read_manifest(tmp_path/'coco.jsonl')
    assert len(s)==251 and all(p.is_file() for p in s.paths) and 'whole: 251 images, broken: 0' in '\n'.join(said)
