"Image files of others: no program is started, damage of any kind is a sentence, and threads share the memory."
import io, os, threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from torch import nn

from bad_inputs import PS, WMF
from fsic_nb import pictures
from fsic_nb.backbones import Transform, freeze_network
from fsic_nb.core import FsicError
from fsic_nb.examples import read_examples
from fsic_nb.features import extract
from fsic_nb.pictures import PixelBudget, decoded, open_rgb
from fsic_nb.prepare import prepare_data
from fsic_nb.tagger import Tagger

PLAIN = Image.fromarray(np.linspace([0, 40, 90], [255, 180, 30], 30)[:, None].repeat(44, 1).astype(np.uint8))

def encoded(fmt, **kw):
    b = io.BytesIO()
    (PLAIN.convert('L') if fmt=='PCX' else PLAIN).save(b, fmt, **kw)
    return b.getvalue()

@pytest.fixture
def trap(tmp_path, monkeypatch):
    "Stand-ins for programs that Pillow knows, first in PATH: a file says that one was started. Formats that are not listed are never asked."
    (tmp_path/'bin').mkdir()
    for n in ('gs', 'gswin32c', 'djpeg', 'cjpeg', 'ppmtogif', 'xdg-open', 'convert', 'magick'):
        (tmp_path/'bin'/n).write_text(f'#!/bin/sh\ntouch {tmp_path}/started\n')
        (tmp_path/'bin'/n).chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path/"bin"}{os.pathsep}{os.environ["PATH"]}')
    monkeypatch.setattr('PIL.EpsImagePlugin.gs_binary', None)
    Image.init()
    asked = []
    def listen(f):
        def factory(fp, name):
            asked.append(f)
            raise SyntaxError(f)
        return factory, lambda prefix: True
    for f in set(Image.OPEN)-{*pictures.FORMATS}: monkeypatch.setitem(Image.OPEN, f, listen(f))
    yield tmp_path
    assert not (tmp_path/'started').exists() and not asked

@pytest.fixture
def folder(trap):
    "A folder of images, of which some are programs."
    (trap/'own'/'cat').mkdir(parents=True)
    for n, b in {'a.jpg': PS, 'b.png': PS+b'%', 'c.gif': b'\xc5\xd0\xd3\xc6'+b'\0'*40+PS, 'd.bmp': WMF, 'e.tif': b'\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1'+bytes(600)}.items():
        (trap/'own'/'cat'/n).write_bytes(b)
    (trap/'own'/'cat'/'x.png').write_bytes(encoded('PNG'))
    return trap/'own'

def test_prepare_starts_no_program(folder):
    lines = []
    assert prepare_data('folder', folder, folder.parent/'m.jsonl', 1, lines.append)==1
    assert sum('no image format that is known here' in l for l in lines)==5 and 'whole: 1 image, broken: 5' in ' '.join(lines)

def test_extract_starts_no_program(folder, trap):
    net = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.ReLU())
    net.forward_features, net.num_features = net.forward, 4
    bb = freeze_network('tiny', net, Transform(32), 'cpu')
    for n in 'a.jpg b.png c.gif d.bmp e.tif'.split():
        with pytest.raises(FsicError, match=f'{n}: cannot be read as an image'): extract([folder/'cat'/n], bb, 'fp32', root=trap/'f')

@pytest.mark.parametrize('n', 'a.jpg b.png c.gif d.bmp e.tif'.split())
def test_the_tagger_starts_no_program(folder, n):
    said = read_examples([folder/'cat'/n, folder/'cat'/'x.png'], ['cat', 'dog'])
    with pytest.raises(FsicError, match=f'{n}: cannot be read as an image'): Tagger().fit(said)

def test_an_image_of_pillow_that_is_a_program_is_refused(tmp_path):
    "Opened by somebody else: it would be drawn by Ghostscript as soon as its pixels are asked for."
    (tmp_path/'x.eps').write_bytes(PS)
    eps = Image.open(tmp_path/'x.eps', formats=['EPS'])
    for f in (open_rgb, lambda im: read_examples([im], ['cat'])):
        with pytest.raises(FsicError, match='no image format that is known here'): f(eps)


# --- memory --------------------------------------------------------------------------------------------------------------------

@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 150), st.booleans()), max_size=40), st.integers(1, 9))
def test_pixels_in_flight_are_bounded(images, workers):
    "Whatever the sizes, the threads and the damage: never more than the room, but for one that is alone; all come to an end."
    budget, seen = PixelBudget(100), []
    def decode(image):
        n, damaged = image
        with budget.take(n):
            seen.append(budget.used)
            with budget.take(n): pass
            if damaged: raise ValueError
    with ThreadPoolExecutor(workers) as pool: done = [pool.submit(decode, i) for i in images]
    assert [d.exception(5) is not None for d in done]==[damaged for _, damaged in images]
    assert budget.used==0 and max(seen, default=0)<=100

def test_room_is_held_as_long_as_the_block(monkeypatch):
    budget = PixelBudget(2000)
    monkeypatch.setattr(pictures, '_budget', budget)
    with decoded(encoded('PNG')) as im:
        assert budget.used==im.width*im.height==1320
        assert open_rgb(encoded('PNG')).size==im.size and budget.used==1320      # the same thread: it has room already
        other = threading.Thread(target=open_rgb, args=[encoded('PNG')])
        other.start()
        other.join(.05)
        assert other.is_alive()                                                  # waits
    other.join(5)
    assert not other.is_alive() and budget.used==0
    for bad in (encoded('PNG')[:90], b''):
        with pytest.raises(FsicError): open_rgb(bad)
    assert budget.used==0

def test_a_draft_costs_what_is_decoded(monkeypatch):
    "An eighth of a JPEG is held; a progressive one is held whole, whatever is asked for."
    costs = []
    real = pictures._cost
    monkeypatch.setattr(pictures, '_cost', lambda im: costs.append(real(im)) or real(im))
    large = PLAIN.resize((1600, 800))
    for kw in ({}, dict(progressive=True)):
        b = io.BytesIO()
        large.save(b, 'JPEG', **kw)
        assert open_rgb(b.getvalue(), hint=100).size==(200, 100)
    assert costs==[200*100, 1600*800]


# --- damage --------------------------------------------------------------------------------------------------------------------

def exif():
    e = Image.Exif()
    e.update({0x0112: 6, 0x010e: 'a', 0x011a: 72.5})
    return e

WHOLE = [encoded('JPEG', exif=exif(), icc_profile=bytes(200)), encoded('JPEG', progressive=True), encoded('PNG', exif=exif(), icc_profile=bytes(200)), encoded('GIF', save_all=True, append_images=[PLAIN.rotate(9)]),
         encoded('TIFF', compression='tiff_lzw'), encoded('TIFF', exif=exif()), encoded('WEBP', exif=exif()), encoded('WEBP', save_all=True, append_images=[PLAIN.rotate(9)]), encoded('BMP'), encoded('PPM'),
         encoded('AVIF'), encoded('JPEG2000'), encoded('TGA', compression='tga_rle'), encoded('PCX'), encoded('SGI'), encoded('MPO', save_all=True, append_images=[PLAIN])]
CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(['set', 'cut', 'double', 'drop']), st.binary(min_size=1, max_size=4)), min_size=1, max_size=6)

def mutate(data, changes):
    for at, how, new in changes:
        at = at%max(1, len(data)) if at%3 else at%40             # a third near the beginning, where sizes stand
        if how=='set': data = data[:at]+new+data[at+len(new):]
        elif how=='cut': data = data[:max(1, at)]
        elif how=='double': data = data[:at]+data[at:at+64]*2+data[at+64:]
        else: data = data[:at]+data[at+len(new):]
    return data

def check_damaged(data, hint):
    try: im = open_rgb(data, hint, 'x.jpg')
    except FsicError as e: assert str(e).startswith('x.jpg: cannot be read as an image (') and '\n' not in str(e)
    else: assert im.mode=='RGB' and np.asarray(im).size==im.width*im.height*3

@settings(deadline=None, max_examples=int(os.environ.get('FSIC_FUZZ', 300)))
@given(st.sampled_from(WHOLE), CHANGES, st.sampled_from([0, 8]))
def test_damaged_bytes_are_a_sentence_or_an_image(data, changes, hint): check_damaged(mutate(data, changes), hint)
