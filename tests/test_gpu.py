"""No two devices meet: everything that follows `words.to(device)` and `--device`, on a GPU that is only pretended.

The pretence is pretended_gpu.py. Each number is compared with that of the CPU; a GPU's own rounding and speed are not seen here.
"""
import contextlib, json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np, pytest, torch

import golden, tuning
from fsic_nb import apply, bench, finetune as fine, show, space, spread, studies
from fsic_nb.backbones import build_network, freeze_network
from fsic_nb.confidence import KINDS_OF_TAG
from fsic_nb.embed import Embed, fit_embed
from fsic_nb.evaluate import evaluate
from fsic_nb.metrics import average_precision, chance_level, episode_metrics, image_replicates
from fsic_nb.refined import RefinedConfig
from fsic_nb.studies import Comparison
from fsic_nb.support import Features, Support, can_score, load_episodes
from fsic_nb.tagger import Tagger
from fsic_nb.train import Plan, Schedule, train
from pretended_gpu import GPU, OnGpu, pretended_gpu
from test_finetune import HEAD, TINY, toy

@pytest.fixture(autouse=True, scope='module')
def gpu():
    with pretended_gpu() as g: yield g


# --- the pretence itself -----------------------------------------------------------------------------------------------

def both(): return torch.arange(6.).view(2, 3), torch.arange(6., device='cuda').view(2, 3)

@pytest.mark.parametrize('mix', [lambda c, g: c+g, lambda c, g: g*c, lambda c, g: g@c.T, lambda c, g: torch.cat([g, c]), lambda c, g: c.add_(g),
    lambda c, g: torch.where(g>0, g, c), lambda c, g: g.masked_fill(c>0, 0), lambda c, g: c[g>0], lambda c, g: torch.stack([g[0, 0], c[0, 0]]),
    lambda c, g: g.index_select(0, torch.tensor([0])), lambda c, g: g.gather(0, torch.zeros(1, 1, dtype=torch.long)),
    lambda c, g: torch.nn.functional.linear(g, c), lambda c, g: g.__setitem__(0, c[0].tolist() and c[0]+g[0])])
def test_devices_do_not_mix(mix):
    with pytest.raises(RuntimeError, match='same device'): mix(*both())

def test_a_gpu_multiplies_no_whole_numbers():
    _, g = both()
    with pytest.raises(RuntimeError, match='not implemented'): g.long()@g.long().T

def test_what_a_gpu_allows():
    c, g = both()
    for y in (g+c[0, 1], c[0, 1]*g, g[torch.tensor([0])], g[c>0], g[[0]], g[np.array([0])], torch.where(g>0, c.sum(), 0.), torch.zeros_like(g), g.new_ones(2), g.new_tensor([1.]),
              torch.eye(2, device=GPU), torch.as_tensor([1], device='cuda'), c.to(g), c.to('cuda', torch.float64), g.double(), torch.nn.Linear(3, 2).to('cuda')(g)):
        assert isinstance(y, OnGpu) and y.device==GPU and y.is_cuda
    for y in (g.cpu(), g.to('cpu'), g.to(c), torch.zeros_like(g, device='cpu')): assert type(y) is torch.Tensor
    for f in (g.numpy, lambda: np.asarray(g), lambda: np.array(g)): pytest.raises(TypeError, f)
    assert g.tolist()==c.tolist() and g[0, 1].item()==float(g[0, 1])==1 and bool((g>=0).all()) and torch.equal(g.cpu(), c) and int(g.sum())==15

def test_what_is_written_is_seen():
    c, g = both()
    g.data = g.data+0
    v, w = g[0], g.view(-1)
    v += 1
    g[1, torch.tensor([0])] = 7.
    w[5:].copy_(torch.tensor([9.]))
    assert g.tolist()==[[1, 2, 3], [7, 4, 9]]
    assert c.copy_(g).tolist()==g.tolist() and type(c) is torch.Tensor

def test_gradients_come_back():
    m = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    x, _ = both()
    def grads():
        x.grad = None
        m.zero_grad()
        x.requires_grad_()
        m(x.to(next(m.parameters()).device)).square().sum().backward()
        return [x.grad, *(p.grad.cpu() for p in m.parameters())]
    want = grads()
    m.to('cuda')
    assert all(isinstance(p, OnGpu) for p in m.parameters()) and all(map(torch.allclose, grads(), want))
    before = m[0].weight.cpu()
    torch.optim.Adam(m.parameters(), fused=True).step()
    assert not torch.equal(before, m[0].weight.cpu())


# --- every method ------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def exps(gpu): return golden.make_experiment(), golden.make_experiment(gpu)

@pytest.fixture(scope='module')
def methods(exps): return [golden.make_methods(exp) for exp in exps]

def near(name): return dict(atol=5e-3 if name.startswith('refined') else 1e-4, rtol=1e-4)

@pytest.fixture(scope='module')
def tasks(exps):
    "Of each device: supports and queries of no, one and five examples, and one in which labels are unknown."
    def some(exp):
        out = [load_episodes(exp, [exp.episodes('test', k)[0]]) for k in (0, 1, 5)]
        support, query, y = load_episodes(exp, [exp.episodes('test', 5)[1]])
        known = torch.from_numpy(np.random.default_rng(8).random(support.y.shape)<.6).to(support.y.device)|support.y
        query.known = known[:, :1].expand_as(y)|y
        return [*out, (Support(support.x, support.y, support.g, support.labels, known), query, y)]
    return [some(exp) for exp in exps]

@torch.no_grad()
@pytest.mark.parametrize('name', golden.kept('scores'))
def test_a_method_on_the_gpu(name, exps, methods, tasks):
    "Its scores are those of the CPU, and on the GPU."
    for (support, query, y), (mine, asked, truth) in zip(*tasks):
        if not can_score(methods[0][name], support.y.shape[1]): continue
        want, got = methods[0][name](support)(query), methods[1][name](mine)(asked)
        assert got.device==GPU and torch.allclose(got.cpu(), want, atol=5e-3 if name.startswith('refined') else 1e-4, rtol=1e-4)
        a, b = (episode_metrics(s, t, weights=q.known)['map'] for s, t, q in ((want, y, query), (got, truth, asked)))
        assert np.allclose(a, b, atol=1e-4)

def test_an_evaluation_on_the_gpu(exps, methods):
    "Several methods at once, with what is remembered of images and words."
    some = 'protonet wagp paper refined named ceiling'.split()
    want, got = (evaluate({n: m[n] for n in some}, exp.episodes('test', 1), exp, n=3, batch=2) for exp, m in zip(exps, methods))
    for n in want: assert all(np.allclose(got[n][k], want[n][k], atol=1e-3, equal_nan=True) for k in ('map', 'micro_ap', 'ap')), n


# --- training ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('method', golden.LEARN)
def test_training_on_the_gpu(method, exps, tmp_path, monkeypatch):
    "Logs and scores are those that were kept, though the run on the GPU is cut at a validation and continued."
    judge = golden.validator
    def cut(*args, **kwargs):
        score, calls = judge(*args, **kwargs), []
        def validate(model):
            calls.append(0)
            if len(calls)==2: raise KeyboardInterrupt
            return score(model)
        return validate
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(golden, 'validator', cut)
        golden.training(exps[1], tmp_path/'gpu', method)
    got = golden.training(exps[1], tmp_path/'gpu', method)
    assert got['scores'].device==GPU
    got['scores'] = got['scores'].cpu()
    assert not golden.differences(golden.plain(got), golden.kept('training')[method], tol=1e-3)

@pytest.mark.parametrize('cfg', [golden.CONFIGS['paper-best-1'], golden.CONFIGS['refined'], golden.SWITCHES['refined, no vocabulary']], ids=str)
def test_a_training_begins_the_same(cfg, exps, tmp_path):
    "The first look at the images, and a step from there."
    def run(exp, folder):
        plan = Plan(cfg, [exp.episodes('train', 1)], Schedule(steps=1, lr=0.), lambda: cfg.initial_model(exp))
        m = train(plan, exp, folder)
        assert all(t.device==exp.words.device for t in m.state_dict().values())
        return m.cpu()
    a, b = (run(exp, tmp_path/str(i)) for i, exp in enumerate(exps))
    for k, t in a.state_dict().items(): assert torch.allclose(b.state_dict()[k], t, atol=1e-4), k

def test_a_joint_space_on_the_gpu(exps):
    def losses(exp):
        torch.manual_seed(0)
        embed = Embed(golden.C, golden.W, golden.D).to(exp.words.device)
        ids = np.arange(40)
        y = torch.as_tensor(exp.images.labels[ids]).to(exp.words.device)
        return fit_embed(embed, exp.features.mean_of(ids).to(exp.words.device), y, exp.words, [[0, 1, 2], [5, 6]], steps=3)
    assert np.allclose(*map(losses, exps), atol=1e-5)

def test_shards_on_the_gpu(exps, tmp_path, monkeypatch):
    for n in ('choose_backbone', 'check_networks'): monkeypatch.setattr(studies, n, lambda *_: None)
    def scored(exp, out):
        monkeypatch.setattr(studies, 'prepare', lambda *_, **kw: exp)
        spec = spread.make_spec([], ['simpleshot', 'protonet', 'chance'], how=Comparison([1], 4), say=lambda line: None)
        assert spec['checks']['device']==str(exp.words.device)
        spread._open_checked.cache_clear()
        return spread.evaluate_on(None, spec, 4, 2, out)[0].results
    want, got = (scored(exp, tmp_path/str(i)) for i, exp in enumerate(exps))
    for n, r in want.items(): assert np.allclose(got[n]['map'], r['map'], atol=1e-5)

@pytest.mark.parametrize('stage', 'lcm loo prototypes metrics evaluation training easyfsl extraction tagging'.split())
def test_what_is_measured_on_the_gpu(stage, tmp_path, monkeypatch):
    def once(ours, against, *args, **kwargs): return ours(), against(), dict(ours_ms=1., against_ms=1., ratio=1., range=[1., 1.], repeats=1)
    monkeypatch.setattr(bench, 'ratio', lambda *args, **kwargs: once(*args, **kwargs)[2])
    rows = list(bench.STAGES[stage](bench.Bench(tmp_path, 1, True, 'cuda', bench.machine_peaks('cuda', 1, 8))))
    assert rows and all('missing' not in r for r in rows)
    for r in rows: assert r['equal_to'] in (None, 'identical kept set') or r['equal_to']<1e-4, r

def test_fine_tuning_on_the_gpu(tmp_path, monkeypatch):
    eps, words = toy(tmp_path/'toy')
    exp = SimpleNamespace(images=eps.images, training=np.arange(8), words=words)
    def run(device, words):
        peers = SimpleNamespace(device=torch.device(device), num_processes=1, process_index=0, is_main_process=True,
                                main_process_first=contextlib.nullcontext, wait_for_everyone=lambda: None)
        monkeypatch.setattr(fine, 'processes', lambda: peers)
        cfg = replace(TINY, head=replace(HEAD, dropout=0.))
        loader = fine.ImageLoader(eps.images, build_network(cfg.backbone, False, cfg.size)[1], workers=1)
        validate = fine.live_validator([eps], loader, words, np.arange(8), n=1)
        folder = tmp_path/device
        for steps in (1, 2): fine.finetune(Plan(cfg, [eps], Schedule(steps=2, lr=1e-3, warmup=1, every=1)), words, folder, validate=validate, how=fine.Tuning(5))
        return [json.loads(line) for line in (folder/'log.jsonl').read_text().splitlines()]
    want = run('cpu', words)
    assert not golden.differences(run('cuda', words), want, tol=2e-3)

def test_a_frozen_and_a_tuned_network_are_compared(exps, tmp_path, monkeypatch):
    for k in ('EPISODES', 'LAST_EPISODES'): monkeypatch.setattr(tuning, k, 2)
    def scored(exp, folder):
        cfg = golden.CONFIGS['wagp']
        plan = Plan(fine.FineTunedConfig('test_resnet', replace(cfg, dropout=0.)), [exp.episodes('train', 1)], Schedule(steps=2, lr=1e-3, every=1))
        tuning.train_frozen(plan, exp, folder)
        return tuning.score(tuning.stored_methods(tuning.last(plan.cfg.head, folder).to(exp.words.device), exp), exp)
    want, got = (scored(exp, tmp_path/str(i)) for i, exp in enumerate(exps))
    assert not golden.differences(got, want, tol=1e-3)


# --- metrics, figures and tags -----------------------------------------------------------------------------------------

def test_metrics_of_the_gpu_do_not_depend_on_the_order_of_equal_scores(gpu):
    "A GPU sorts equal scores in any order: they enter together."
    r = np.random.default_rng(0)
    s, y, w = torch.from_numpy(r.integers(0, 4, (6, 30, 5))).float()-1, torch.from_numpy(r.random((6, 30, 5))<.3), torch.from_numpy(r.random((6, 30, 5))<.8)
    want = episode_metrics(s, y, weights=w)
    for at in (np.arange(30), r.permutation(30)):
        got = episode_metrics(*(t[:, at].to(gpu) for t in (s, y)), weights=w[:, at].to(gpu))
        for k, v in want.items(): assert np.allclose(got[k], v, atol=1e-12, equal_nan=True), k
        assert torch.allclose(average_precision(s[:, at].mT.to(gpu), y[:, at].mT.to(gpu)).cpu(), average_precision(s.mT, y.mT), equal_nan=True, atol=1e-12)
    query = r.integers(0, 50, (6, 30))
    assert np.array_equal(image_replicates(s.to(gpu), y.to(gpu), query, 5), image_replicates(s, y, query, 5))
    assert torch.equal(chance_level(y.sum(1).to(gpu), 30.).cpu(), chance_level(y.sum(1), 30.))

def test_figures_of_the_gpu(exps, methods, tmp_path, monkeypatch):
    monkeypatch.setattr(show, '_square', lambda image, size, *args: np.zeros((size, size, 3), np.uint8))
    for n in ('show_episode', 'show_results'): monkeypatch.setattr(studies, n, lambda *args: show._Sheet(1, 1).fig)
    monkeypatch.setattr(type(exps[1].features), 'grid', (3, 3), raising=False)
    exp = replace(exps[1], scenes=None)
    assert 'lcm.png' in studies.draw_figures(tmp_path, exp, methods[1]['refined'], [], exp.episodes('test', 1)[0])

@pytest.fixture(scope='module')
def photos(gpu, tmp_path_factory):
    folder = tmp_path_factory.mktemp('photos')
    return folder, bench.write_jpegs(folder/'photos', 4, (80, 60))

def test_tags_with_a_network_on_the_gpu(photos, monkeypatch):
    "A space is made and read again, a tagger fitted, explained and applied; what is not the network stays on the CPU."
    folder, paths = photos
    found = {}
    for device in ('cpu', 'cuda'):
        torch.manual_seed(0)
        bb = freeze_network('lite0', *build_network('lite0', False, 32), device)
        for module in (space, apply): monkeypatch.setattr(module, 'load_backbone', lambda *args, bb=bb, **kwargs: bb)
        space.make_space(paths, dim=8, prior=dict.fromkeys(KINDS_OF_TAG, (0.,)*4)).save(folder/f'{device}.safetensors')
        t = Tagger(words=False)
        t.space_ = space.load_space(folder/f'{device}.safetensors', device=device)
        assert t.space_.encoder.proj.weight.device.type=='cpu'
        t.fit(paths, [['a'], ['b'], ['a'], ['b']])
        b = t.batch(list(t.read(paths[:2])), explain=True, places=True)
        scores = apply.apply(t, None, folder/'photos', None, folder/f'scores-{device}', apply.How(device=device, places=True))
        model = golden.make_models(dict(m=RefinedConfig(bb.channels, 5, 8)))['m']
        f = torch.stack([r.f.float() for r in t.read(paths)])
        y = torch.tensor([[1, 0], [0, 1], [1, 0], [0, 1]]).bool()
        scorer = apply.Scorer(model, Support(Features(f), y, torch.ones(2, 5)), ['a', 'b'], bb)
        found[device] = [b.p, np.stack([b.places]), np.concatenate([x.p for x in scores]), scorer.batch(list(t.read(paths)), places=True).p]
    for want, got in zip(*found.values()): assert np.allclose(got, want, atol=1e-3)
