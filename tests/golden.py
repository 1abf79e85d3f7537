"""A tiny fixed task, every method of the library on it, and the numbers that come out.

    python tests/golden.py           compare with what is kept in tests/golden/
    python tests/golden.py --write   keep the numbers of today, after a change that is meant to change them

Everything is drawn by NumPy: no network, no weights from elsewhere, no random numbers of PyTorch.
"""
import contextlib, io, json, math, re, sys, tempfile
from pathlib import Path

import numpy as np, torch

from fsic_nb.baselines import TRAINING_FREE, LasoConfig, RelationConfig
from fsic_nb.confidence import KINDS_OF_TAG, fit_confidence
from fsic_nb.data import ImageSet, LabelSplit
from fsic_nb.evaluate import evaluate, records
from fsic_nb.experiment import Experiment
from fsic_nb.model import PaperConfig
from fsic_nb.named import fit_named, fit_space, name_only
from fsic_nb.partial import UNLISTED, solve_weighted, system_of, weigh_examples, with_background
from fsic_nb.recipes import MADE_OF_PARTS, RECIPES, build_methods
from fsic_nb.refined import Encoder, RefinedConfig
from fsic_nb.space import Space
from fsic_nb.support import Features, Support, load_episodes
from fsic_nb.tagger import Example, Reading, Tagger
from fsic_nb.train import Plan, Schedule, train, validator

FOLDER = Path(__file__).parent/'golden'
C, W, D, L, CLASSES = 12, 5, 8, 9, 7                # channels, word dimensions, space, local features, classes
N_IMAGES, TASKS = 240, dict(train=[['a', 'b', 'c', 'd', 'e']], val=[['f', 'g', 'h']], test=[['i', 'j', 'k', 'l']])
NAMES = [n for tasks in TASKS.values() for t in tasks for n in t]
SHOTS = 1, 5


# --- the task ----------------------------------------------------------------------------------------------------------

def draw(*key, shape, scale=1.):
    "Numbers from a normal distribution, the same everywhere."
    return torch.from_numpy((scale*np.random.default_rng([*key]).normal(size=shape)).astype(np.float32))


def with_weights(module, seed, scale=.3):
    "The module with weights from NumPy; dials and offsets are moved a little from where they begin."
    r = np.random.default_rng(seed)
    with torch.no_grad():
        for m in module.modules():
            if isinstance(m, torch.nn.Linear) and m.bias is not None: m.bias.zero_()
        for p in module.parameters():
            x = torch.from_numpy(r.normal(size=tuple(p.shape)).astype(np.float32))
            if p.ndim>1: p.copy_(scale*x)
            else: p.add_(.02*x)
        for b in module.buffers():
            if b.is_floating_point(): b.add_(torch.from_numpy(r.uniform(.1, .3, tuple(b.shape)).astype(np.float32)))
    return module.eval()


class Store:
    "Local features in memory: an image shows each of its labels in some places, and noise everywhere."
    meta = dict(backbone='toy', weights='none', transform=dict(size=0))
    key = 'toy'
    channels = C

    def __init__(self, labels):
        r = np.random.default_rng(1)
        way = r.normal(size=(len(NAMES), C))
        x = .6*r.normal(size=(len(labels), L, C))+.3
        for j, i in zip(*np.nonzero(labels)): x[j, r.permutation(L)[:3]] += way[i]
        self.x = torch.from_numpy(x.astype(np.float32))

    def __len__(self): return len(self.x)
    def __getitem__(self, ids): return self.x[torch.as_tensor(ids)]
    def mean_of(self, ids): return self[ids].mean(-2)


class Masks:
    "The share of every place that a label covers, as the scenes have it."
    def __init__(self): self.share = np.random.default_rng(2).random((N_IMAGES, len(NAMES), L)).astype(np.float32)
    def coverage(self, ids, labels, grid): return self.share[np.asarray(ids)[..., :, None], np.asarray(labels)[..., None, :]]


class Toy(Experiment):
    "An experiment without a network."
    def name_cosines(self): return draw(4, shape=(len(NAMES), CLASSES), scale=.15).to(self.words.device)


def make_images():
    "Each image has labels of one part, one of them for sure; no label is carried by all images of a support."
    r = np.random.default_rng(2)
    y = np.zeros((N_IMAGES, len(NAMES)), bool)
    tasks = [[NAMES.index(n) for n in t] for part in TASKS.values() for t in part]
    for j in range(N_IMAGES):
        own = tasks[j%len(tasks)]
        y[j, own] = r.random(len(own))<.3
        y[j, own[(j//len(tasks))%len(own)]] = True
    return ImageSet([f'{j}.jpg' for j in range(N_IMAGES)], NAMES, y, 'toy')


def make_experiment(device='cpu'):
    images = make_images()
    words = draw(3, shape=(len(NAMES), W)).to(device)
    exp = Toy('scenes', images, LabelSplit('toy', **TASKS), Store(images.labels), words, queries=3)
    exp.__dict__.update(scenes=Masks(), head=(draw(5, shape=(CLASSES, C), scale=.5), draw(6, shape=(CLASSES,), scale=.1)))
    return exp


# --- every method ------------------------------------------------------------------------------------------------------

# name -> configuration; every method of `RECIPES`, and every switch of ours and of the paper
CONFIGS = dict(
    wagp=PaperConfig(C, W, D, 2, prototype='wagp'), paper=PaperConfig(C, W, D, 2, lcm_steps=5),
    refined=RefinedConfig(C, W, D, CLASSES),
    **{f'paper-best-{k}': PaperConfig(C, W, D, 2, lcm_steps=5, start='identity') for k in SHOTS},
    relation=RelationConfig(C, D, 6, 0.), laso=LasoConfig(C, D, 6))
SWITCHES = {
    'refined, no vocabulary': RefinedConfig(C, W, D), 'refined, signed': RefinedConfig(C, W, D, select='signed'),
    'refined, share': RefinedConfig(C, W, D, select='share'), 'refined, mean': RefinedConfig(C, W, D, solve='mean'),
    'refined, no push': RefinedConfig(C, W, D, push=False), 'refined, no claims': RefinedConfig(C, W, D, claims=False),
    'refined, no word': RefinedConfig(C, W, D, word=False), 'refined, four rounds': RefinedConfig(C, W, D, rounds=4),
    'refined, mean query': RefinedConfig(C, W, D, query='mean'),
    'paper, exact share': PaperConfig(C, W, D, 2, lcm='exact', keep='share'),
    'paper, label signed': PaperConfig(C, W, D, 2, lcm='label', keep='signed'),
    'paper, iterated share': PaperConfig(C, W, D, 2, lcm_steps=5, keep='share'),
    'paper, conv first': PaperConfig(C, W, D, 2, parts=('conv', 'gate'), lcm='none'),
    'paper, no parts': PaperConfig(C, W, D, 2, parts=(), lcm='none'),
    'paper, words': PaperConfig(C, W, D, 2, prototype='words')}


def make_models(configs):
    return {n: with_weights(cfg.build(), 10+i) for i, (n, cfg) in enumerate(configs.items())}


def make_methods(exp):
    "Every method that has a name, then every switch, then methods that begin from one look at the training images."
    silent = lambda line: None
    names = [*TRAINING_FREE, *RECIPES, *MADE_OF_PARTS]
    models, switched = ({n: m.to(exp.words.device) for n, m in make_models(c).items()} for c in (CONFIGS, SWITCHES))
    methods = build_methods(names, exp, models, say=silent)
    methods |= switched
    named = fit_named(exp, fit_space(exp, 6))
    start = RefinedConfig(C, W, D).initial_model(exp).eval()
    vocabulary = RefinedConfig(C, W, D, CLASSES).initial_model(exp).eval()
    return methods | {'named, fresh space': named, 'name-places, fresh space': name_only(named),
                      'refined, start': start, 'refined, start with vocabulary': vocabulary}


# --- the tagger --------------------------------------------------------------------------------------------------------

class ToySpace(Space):
    "A space without a network, in which names have drawn cosines."
    network = type('network', (), dict(grid=(3, 3), channels=C, key='toy', device='cpu'))
    def compare(self, names): return torch.stack([draw(7, *n.encode(), shape=(CLASSES,), scale=.15)*(n!='qzx') for n in names])


def make_space():
    encoder = with_weights(Encoder(C, D, CLASSES), 40)
    prior = {k: (1.+.1*i, .1*i, .05, -.02) for i, k in enumerate(KINDS_OF_TAG)}
    rates = torch.from_numpy(np.random.default_rng(41).dirichlet(np.full(CLASSES, 5.)).astype(np.float32))
    return ToySpace('toy', 0, 'toy', encoder, rates, encoder.whole(draw(42, shape=(30, L, C))), prior)


TAGS = [f'tag {n}' for n in 'abcd']+['qzx']         # the last one's name says nothing
SAID = dict(yes=[[0, 1], [0], [1, 4], [2], [0, 2, 4], [1]], no=[[2], [], [0], [0, 4], [], [3]])


def make_examples(said=SAID, first=0):
    "Six examples; of some tags nothing is said."
    out = []
    for i, (yes, no) in enumerate(zip(said['yes'], said['no'])):
        f = draw(43, first+i, shape=(L, C))
        for t in yes: f = f+.8*draw(44, t, shape=(C,))
        out.append(Example(f'{i}', f'{first+i:02}', f.half(), b'', frozenset(TAGS[t] for t in yes), frozenset(TAGS[t] for t in no)))
    return out


def make_tagger(examples=None, unlisted='unlikely', words=True, only=('tag d',)):
    "A tagger that was fitted without reading an image."
    t = Tagger(unlisted=unlisted, words=words)
    t.space_ = make_space()
    with contextlib.redirect_stdout(io.StringIO()): return t._solve(make_examples() if examples is None else examples, list(only), [])


def make_readings(n=4): return [Reading(f'photo {i}', f'p{i}', draw(45, i, shape=(L, C)).half()) for i in range(n)]


# --- the numbers -------------------------------------------------------------------------------------------------------

def plain(x):
    "What JSON can hold: six digits of every number."
    if isinstance(x, dict): return {str(k): plain(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)): return [plain(v) for v in x]
    if isinstance(x, torch.Tensor): x = x.detach().numpy()
    if isinstance(x, (np.ndarray, np.generic)): return plain(x.tolist())
    if isinstance(x, float): return None if math.isnan(x) else float(f'{x:.6g}')
    return x


@torch.no_grad()
def scores(exp, methods):
    "Scores of two episodes, and of one in which some labels are unknown."
    out = {}
    for k in SHOTS:
        eps = exp.episodes('test', k)
        support, query, _ = load_episodes(exp, [eps[0], eps[1]])
        for n, m in methods.items(): out.setdefault(n, {})[f'{k}-shot'] = m(support)(query)[:, ::3]
    known = torch.from_numpy(np.random.default_rng(8).random(support.y.shape)<.6)|support.y
    support = Support(support.x, support.y, support.g, support.labels, known)
    for n, m in methods.items(): out[n]['partly known'] = m(support)(query)[:1, ::3]
    return out


def all_records(exp, methods, n=6):
    "What an evaluation writes; another baseline than the first method, so that no difference is 0 for all."
    rows = []
    for k in SHOTS:
        eps = exp.episodes('test', k)
        rows += records(evaluate(methods, eps, exp, n=n), eps, baseline='ridge')
    return [{k: v for k, v in r.items() if k!='seconds'} for r in rows]


LEARN = dict(wagp=dict(dropout=0.), paper=dict(dropout=0.), refined=dict(), relation=dict(dropout=0.), laso=dict())


def training(exp, folder, method):
    "What a short training logs, and the scores of the weights that validation chose."
    cfg = type(CONFIGS[method])(**{**vars(CONFIGS[method]), **LEARN[method]})
    kinds = [exp.episodes('train', 1), exp.episodes('train', 5, queries=2, ways=3)]
    plan = Plan(cfg, kinds, Schedule(steps=5, lr=1e-3, warmup=2, batch=2, every=2, decay=True), lambda: with_weights(cfg.build(), 50))
    model = train(plan, exp, folder, 0, validator([exp.episodes('val', k) for k in (1, 2)], exp, n=4, batch=3))
    with torch.no_grad():
        support, query, _ = load_episodes(exp, [exp.episodes('test', 1)[2]])
        s = model(support)(query)[0, ::3]
    return dict(log=[json.loads(l) for l in (folder/'log.jsonl').read_text().splitlines()], scores=s)


def partial():
    "Weighted corrections and left-out scores from examples that list only some of their tags."
    s, v = draw(60, shape=(6, 3)), torch.nn.functional.normalize(draw(61, shape=(6, D)), dim=-1)
    yes = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0]]).bool()
    no = torch.tensor([[0, 1, 0], [0, 0, 1], [1, 0, 1], [0, 0, 0], [0, 0, 1], [0, 0, 1]]).bool()
    ground, named, out = torch.nn.functional.normalize(draw(62, shape=(4, D)), dim=-1), torch.tensor([True, True, False]), {}
    for unlisted in UNLISTED:
        rows = with_background(s, v, yes, weigh_examples(yes, no, unlisted), ground, named)
        x = solve_weighted(*rows)
        out[unlisted] = dict(P=x.correction.P, trust=x.correction.trust, b=x.correction.b, z=x.z, left=x.left, rest=rows[2], w=rows[3])
    return out | dict(system=system_of(s, v, weigh_examples(yes, no)))


def tagging():
    "Probabilities, thresholds, what spoke and where."
    out, some = {}, make_readings()
    for unlisted in UNLISTED:
        t = make_tagger(unlisted=unlisted)
        p = t.predict_proba(some)
        out[unlisted] = dict(tags=t.tags_, kinds=t.evidence_.kinds(), p=p.to_numpy(), thresholds=t.thresholds_, left=t.evidence_.left,
                             tagged=t.predict(some).tags.tolist(), best=t.predict(some, 'top2').tags.tolist(), precise=t.confidence_.for_precision(.6))
    s, v = t._scored(some)
    out['reasons'] = dict(heats=t.heats(some)[:2], spoke=[t.speakers(s[0], v[0], i) for i in range(len(t.tags_))])
    return out


def drawn(exp):
    "Numbers of the images of some episodes: another seed, part, protocol or order of draws shows."
    cells = dict(test=('test', 1, {}), train=('train', 5, dict(queries=2, ways=3)), val=('val', 2, dict(seed=3)), masked=('test', 2, dict(protocol='masked')))
    return {n: [dict(support=ep.support, query=ep.query, labels=ep.labels) for ep in (exp.episodes(part, k, **kw)[e] for e in (0, 7))]
            for n, (part, k, kw) in cells.items()} | dict(training=exp.training, unseen=exp.unseen, centre=exp.centre)


def compute(kind, exp=None, methods=None):
    "The numbers of one file."
    if kind=='partial': return plain(partial())
    if kind=='tagger': return plain(tagging())
    exp = exp or make_experiment()
    if kind=='episodes': return plain(drawn(exp))
    if kind=='training':
        with tempfile.TemporaryDirectory() as d: return plain({m: training(exp, Path(d)/m, m) for m in LEARN})
    return plain(dict(scores=scores, records=all_records)[kind](exp, methods or make_methods(exp)))


KINDS = 'scores', 'records', 'training', 'partial', 'tagger', 'episodes'


def kept(kind): return json.loads((FOLDER/f'{kind}.json').read_text(encoding='utf-8'))


def differences(got, want, at='', tol=1e-4):
    "Where two such things differ by more than `tol`, of the number or of one."
    if isinstance(want, dict) and isinstance(got, dict):
        if list(got)!=list(want): return [f'{at}: {sorted(set(got)^set(want)) or "another order"}']
        return [d for k in want for d in differences(got[k], want[k], f'{at}/{k}', tol)]
    if isinstance(want, list) and isinstance(got, list):
        if len(got)!=len(want): return [f'{at}: {len(got)} instead of {len(want)}']
        return [d for i, (a, b) in enumerate(zip(got, want)) for d in differences(a, b, f'{at}/{i}', tol)]
    numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (got, want))
    same = abs(got-want)<=tol*max(1, abs(want)) if numbers else got==want
    return [] if same else [f'{at}: {got} instead of {want}']


def write(kind, data):
    "One line for every row of numbers, so that a change can be read."
    text = json.dumps(data, indent=1, ensure_ascii=False)
    flat = re.sub(r'\[[^\[\]{}]*\]', lambda m: re.sub(r'\s+', ' ', m[0]).replace('[ ', '[').replace(' ]', ']'), text)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER/f'{kind}.json').write_text(flat+'\n', encoding='utf-8')


if __name__=='__main__':
    bad = 0
    for kind in KINDS:
        data = compute(kind)
        if '--write' in sys.argv: write(kind, data)
        found = differences(data, kept(kind))
        bad += len(found)
        print(f'{kind}: '+('as kept' if not found else f'{len(found)} differ, such as {found[0]}'))
    sys.exit(bad>0)
