"""Bad input as data: what is given, what must be said. `test_bad_inputs` runs every row; a table can be made of them.

A row is (name, what, said, code). `what` is a command line (its words; exit code 2, one line on stderr, nothing written), or
a function of a folder, which raises a `FsicError` (code None). `said` must be in the sentence.
"""
import os, socket
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from fsic_nb import core, data, pictures
from fsic_nb.configs import Cell, to_cell
from fsic_nb.examples import clean_tag, read_examples
from fsic_nb.prepare import prepare_tree
from fsic_nb.protocols import Options
from fsic_nb.studies import Comparison
from fsic_nb.train import Schedule

PS = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n'
WMF = b'\xd7\xcd\xc6\x9a\0\0' + b'\0\0\0\0\x08\0\x08\0' + b'\x60\0' + b'\0'*6 + b'\x01\0\x09\0\0\x03' + b'\0'*40
SPIDER_LIKE = b'\0'*1024
LABELS = dict(nothing='', spaces='   ', zero_width='\u200b\u200d', filler='\u3164', nul='ca\0t', newline='ca\nt', tab='ca\tt',
              escape='\x1b[2Jcat', bell='cat\a', csi='\x9b31mcat', override='\u202egpj.exe', isolate='cat\u2066x', mark='cat\u200fx',
              separator='cat\u2028x', byte_order='\ufeffcat', half_pair='cat\udcff', long='x'*10_000)
ODD = {'nothing': b'', 'text': b'no image', 'cat.jpg is PostScript': PS, 'cat.png is PostScript': PS, 'cat.wmf': WMF,
       'zeros': SPIDER_LIKE, 'html': b'<html>404</html>', 'a cut JPEG': b'\xff\xd8\xff\xe0\0\x10JFIF', 'a cut PNG': b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR',
       'PCX of nothing': b'\x0a\x05\x01\x08' + b'\0'*124, 'FLI': b'\0\0\0\0\x11\xaf' + b'\0'*130, 'FPX or MIC': b'\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1' + b'\0'*600}


def write(name, content, f, folder):
    (folder/name).write_bytes(content)
    f(folder/name)

def open_odd(make, folder):
    "Make something that is no regular file, and open it as an image."
    path = folder/'x.jpg'
    make(path)
    pictures.open_rgb(path)

def bind(path):
    with socket.socket(socket.AF_UNIX) as s:
        os.chdir(path.parent)
        s.bind(path.name)

def sparse(path):
    with open(path, 'wb') as f: f.truncate(pictures.LARGEST_FILE+1)

def raw(ihdr, folder):
    "Write a PNG of a few bytes that says it is large."
    import struct, zlib
    def chunk(kind, b): return struct.pack('>I', len(b))+kind+b+struct.pack('>I', zlib.crc32(kind+b))
    text = chunk(b'zTXt', b'a\0\0'+zlib.compress(b'0'*200_000_000)) if ihdr=='text' else b''
    size = (8, 8) if text else ihdr
    (folder/'x.png').write_bytes(b'\x89PNG\r\n\x1a\n'+chunk(b'IHDR', struct.pack('>IIBBBBB', *size, 8, 2, 0, 0, 0))+text+chunk(b'IDAT', zlib.compress(b'\0'*99))+chunk(b'IEND', b''))
    pictures.open_rgb(folder/'x.png')

def image_set(name, folder=None): return data.ImageSet(['a.jpg'], [name], [[1]], 'toy')
def split(name, folder=None): return data.LabelSplit('toy', [], [], [name])
def home_of(text, folder):
    old = os.environ.get('FSIC_HOME')
    os.environ['FSIC_HOME'] = text
    try: core.home()
    finally: os.environ.pop('FSIC_HOME') if old is None else os.environ.update(FSIC_HOME=old)

CELL = dict(data='voc', split='voc', shots=1, method='paper', backbone='resnet50')
def cell(folder=None, **kw): return to_cell({'name': 'x', **CELL, **kw}, 'x.toml')
def never(f, *args, **kw): return lambda folder: f(*args, **kw)

IMAGES = [(f'image file, {k}', partial(write, 'cat.jpg', b, pictures.open_rgb), 'cat.jpg: cannot be read as an image', None) for k, b in ODD.items()]
IMAGES += [('image file, a pipe', partial(open_odd, os.mkfifo), 'it is no regular file', None),
           ('image file, a link to /dev/zero', partial(open_odd, lambda p: p.symlink_to('/dev/zero')), 'it is no regular file', None),
           ('image file, a link to a pipe', partial(open_odd, lambda p: (os.mkfifo(p.with_name('pipe')), p.symlink_to('pipe'))), 'it is no regular file', None),
           ('image file, a folder', partial(open_odd, Path.mkdir), 'x.jpg: cannot be read (Is a directory)', None),
           ('image file, a socket', partial(open_odd, bind), 'x.jpg: cannot be read (', None),
           ('image file, a link to itself', partial(open_odd, lambda p: p.symlink_to('x.jpg')), 'x.jpg: cannot be read (', None),
           ('image file, more than 512 MiB', partial(open_odd, sparse), 'more than 512 MiB', None),
           ('image file, NUL in its name', never(pictures.open_rgb, 'a\0.jpg'), 'cannot be read (embedded null byte)', None),
           ('image file, a line break in its name', never(pictures.open_rgb, 'a\n\x1b[2J.jpg'), r'a\n\x1b[2J.jpg: cannot be read', None),
           ('PNG of 60,000 x 60,000', partial(raw, (60_000, 60_000)), 'exceeds limit', None), ('PNG with 200 MB of text', partial(raw, 'text'), 'cannot be read as an image', None),
           ('an image of Pillow that is EPS', partial(write, 'cat.eps', PS, lambda p: pictures.open_rgb(Image.open(p, formats=['EPS']))), 'no image format that is known', None)]
NAMES = [(f'label of an image set, {k}', partial(image_set, v), "toy: the label '", None) for k, v in LABELS.items()]
NAMES += [(f'label of a split, {k}', partial(split, v), 'test', None) for k, v in LABELS.items()]
NAMES += [(f'tag, {k}', never(clean_tag, v), 'tag ', None) for k, v in LABELS.items()]
NAMES += [('path with NUL in an image set', never(data.ImageSet, ['a\0'], ['cat'], [[1]], 'toy'), 'no file can be called', None),
          ('split whose name is a number', never(data.LabelSplit, 3, [], [], ['cat']), 'has a text as its name', None),
          ('tags of examples with an escape code', never(read_examples, [np.zeros((9, 9, 3), np.uint8)], ['\x1b[2J']), 'tag ', None)]

HUGE = 10**40
NUMBERS = [(f'seed {s}', never(core.rng, s), 'seed ', None) for s in (-1, HUGE)]
NUMBERS += [(f'Schedule, {k}={v!r}', never(Schedule, **{k: v}), f'schedule.{k} ', None) for k, v in
            [('lr', float('nan')), ('lr', float('inf')), ('lr', -1.), ('lr', 1e38), ('lr_start', float('nan')), ('steps', 0), ('steps', 10**12), ('batch', 0), ('batch', 10**12), ('every', -1), ('warmup', -1)]]
NUMBERS += [(f'cell, {k} = {v!r}', partial(cell, **{k: v}), 'x.toml', None) for k, v in
            [('shots', 0), ('shots', 10**12), ('queries', 10**12), ('ways', 0), ('ways', 10**12), ('size', 10**9), ('seed', -1), ('seed', HUGE), ('episodes', 10**12), ('max_images', 10**12),
             ('published', float('nan')), ('published', float('inf')), ('shots', 1.5), ('shots', True), ('method', 3), ('schedule', dict(lr=float('nan'))), ('schedule', dict(lr=-1.)), ('schedule', dict(steps=10**12))]]
NUMBERS += [(f'Options, {k}={v!r}', never(Options, **{k: v}), f'--{k} ', None) for k, v in [('size', 10**9), ('size', 0), ('queries', 0), ('queries', 10**12), ('negatives', -1), ('negatives', 10**12)]]
NUMBERS += [(f'Comparison, {k}={v!r}', never(Comparison, **{k: v}), f'--{k} ', None) for k, v in [('shots', [-1]), ('shots', [10**12]), ('episodes', 0), ('episodes', 10**12), ('seed', HUGE)]]
NUMBERS += [('FSIC_HOME empty', partial(home_of, ''), 'FSIC_HOME is empty', None), ('FSIC_HOME of spaces', partial(home_of, '  '), 'FSIC_HOME is empty', None),
            ('workers 10**9', lambda folder: prepare_tree(image_set('cat'), folder/'m.jsonl', 10**9), '--workers 1000000000', None)]

def line(text, said): return (text, text.split(' '), said, 2)
COMMANDS = [line(f'{c} {o}=', f'{o} \'\': is empty') for c, options in dict(demo=('--out', '--data', '--root'), train=('--out', '--method', '--config', '--gpu'),
            evaluate=('--out', '--data', '--shots', '--baseline'), prepare=('--out', '--root'), finetune=('--out', '--data', '--weights', '--precision', '--batch-norm')).items() for o in options]
COMMANDS += [line(f'{c} --seed={s}', f'--seed {str(s)[:9]}') for c in ('demo', 'train', 'evaluate') for s in (-1, HUGE)]
COMMANDS += [line(f'{c} --{k}={v}', f'--{k} {v}: expected') for c in ('demo', 'train', 'evaluate') for k, v in [('size', 10**9), ('size', 0), ('queries', 10**12), ('negatives', -1)]]
COMMANDS += [line('evaluate --run=,,', "--run ',,': names nothing"), line('evaluate --method=,', "--method ',': names nothing"), line('evaluate --episodes=1000000000000', '--episodes 1000000000000: expected'),
             line('evaluate --episodes=0', '--episodes 0: expected'), line('evaluate --shots=99999', 'expected whole numbers'), line('bench --repeats=0', '--repeats 0: expected'), line('bench --repeats=1000000000', '--repeats 1000000000: expected'),
             line('finetune --data=voc --root=. --lr=nan', 'schedule.lr nan: expected'), line('finetune --data=voc --root=. --lr=1e38', 'schedule.lr 1e+38: expected'), line('finetune --data=voc --root=. --steps=1000000000000', 'schedule.steps'),
             line('finetune --data=voc --root=. --batch=1000000000000', 'schedule.batch'), line('finetune --data=voc --root=. --shots=1000000000000', 'shots 1000000000000'), line('finetune --data=voc --root=. --ways=1000000000000', 'ways 1000000000000'),
             line('finetune --data=voc --root=. --max-images=0', 'max_images 0'), line('tag examples photos --threshold=nan', '--threshold nan'), line('tag examples photos --precision=nan', '--precision nan'),
             line('tag examples photos --precision=2', '--precision 2'), line('tag examples photos --out=', "--out '': is empty"), line('tag examples photos --threshold=', "--threshold '': is empty"), line('tag fit examples --out=', "--out '': is empty")]

# every word that is expected as a number: argparse says it, after the usage
WORDS = [(f'{c} --{o}=x', [c, f'--{o}=x'], f'invalid {kind}', 2) for c, o, kind in
         [('demo', 'seed', 'int'), ('demo', 'size', ''), ('train', 'seed', 'int'), ('evaluate', 'episodes', 'int'), ('prepare', 'workers', 'int'), ('finetune', 'lr', 'float'), ('finetune', 'shots', 'int'), ('bench', 'repeats', 'int')]]
BAD = IMAGES+NAMES+NUMBERS+COMMANDS+WORDS
