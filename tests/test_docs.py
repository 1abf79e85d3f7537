"The site: built once, judged by its HTML, and proven able to fail."
import html, importlib, inspect, json, os, re, shutil, subprocess, sys, threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from execnb.nbio import read_nb
from fastcore.docments import docments

import api_docs, build_docs, notebooks

root = Path(__file__).resolve().parents[1]
modules = {m.name: m for p in sorted((root/'fsic_nb').glob('*.py')) if (m := api_docs.Module(p)).public}


@pytest.fixture(scope='session')
def site(tmp_path_factory):
    "The built site; `build` itself raises on what is broken."
    out = tmp_path_factory.mktemp('site')
    build_docs.build(out)
    return out


def page(site, name): return (site/'html'/name).read_text(encoding='utf-8')


# --- README, site and notebooks agree ---------------------------------------------------------------------------------------

def test_every_notebook_has_its_place_in_the_story():
    "The table of parts, which README shows and the navigation follows, names every notebook once and in order."
    named = [s for _, _, stems in build_docs.parts() for s in stems]
    assert sorted(named)==sorted(p.stem for p in notebooks.notebooks() if p.stem!='index')
    assert len(named)==len(set(named))


def test_pages_for_notebooks_modules_and_data_sets(site):
    want = [p.stem for p in notebooks.notebooks()] + [f'api/{m}' for m in modules] + [f'data/{build_docs.slug(t)}' for t in build_docs.datasets()[1]]
    missing = [w for w in want if not (site/'html'/f'{w}.html').exists()]
    assert not missing
    nav = page(site, 'index.html')
    assert not [w for w in want if f'href="./{w}.html"' not in nav and w!='index']


def test_results_are_the_same_everywhere(site):
    "The numbers of the result tables: README, first page and saved outputs of nbs/index.ipynb."
    outputs = ''.join(build_docs.shown(o) for c in read_nb(root/'nbs'/'index.ipynb').cells for o in c.get('outputs', []))
    numbers, readme, first = re.findall(r'\d+\.\d ± \d+\.\d', outputs), (root/'README.md').read_text(encoding='utf-8'), page(site, 'index.html')
    assert len(numbers)>10 and all(n in readme and n in first for n in numbers)


def test_every_figure_is_on_the_site_with_caption_and_alt_text(site):
    for p in notebooks.notebooks():
        cells = [c for c in notebooks.directives(read_nb(p)).cells if 'hide' not in c.get('directives_', {})]
        n = sum('image/png' in o.get('data', {}) for c in cells for o in c.get('outputs', []))
        html = page(site, f'{p.stem}.html')
        assert len(re.findall(rf'<img [^>]*src="figures/{p.stem}-', html))==n
        assert html.count('<figcaption')>=n and 'alt=""' not in html


def test_nothing_is_left_of_markdown_and_tex(site):
    for p in sorted((site/'html').glob('*.html')):
        text = re.sub(r'<(script|code|style).*?</\1>', '', p.read_text(encoding='utf-8'), flags=re.S)
        for left in ('\\(', '$$', '\\frac', '*Figure', '{#', '{.', 'mathvariant="script"'): assert left not in text, (p.name, left)
    assert page(site, '12_lcm.html').count('<math')>20 and 'ℓ' in html.unescape(page(site, '12_lcm.html'))


def test_the_site_is_searchable_and_works_alone(site):
    index = json.loads((site/'html'/'search.json').read_text(encoding='utf-8'))
    assert 'leave_one_out' in json.dumps(index)
    first = page(site, 'index.html')
    for what in ('name="viewport"', 'data-md-color-scheme="slate"', 'content.code.copy'): assert what in first


# --- API reference ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', modules)
def test_reference_is_complete_and_agrees_with_docments(name):
    m, mod = modules[name], importlib.import_module(f'fsic_nb.{name}')
    entries = dict(m.entries())
    assert set(m.public)=={n for n in entries if '.' not in n}
    for n, node in entries.items():
        f = inspect.getattr_static(mod, n, None)
        if not inspect.isfunction(f) or f.__module__!=mod.__name__: continue
        want = {k.replace('return', 'returns') if k=='return' else k: (v or '').strip() for k, v in docments(f, args_kwargs=True).items()}
        have = {k.lstrip('*'): comment for k, _, _, comment in api_docs.parameters(m, node)}
        if hasattr(f, '__delwrap__'): want = {**{k: v for k, v in want.items() if k in have}, 'kwargs': have['kwargs']}   # the options of another
        assert {k: v for k, v in have.items() if v}=={k: v for k, v in want.items() if v}, n


def test_source_links_point_at_the_definition(site):
    m = modules['lcm']
    line = m.lines.index('def pool(')+1
    assert f'../source/lcm.html#__codelineno-0-{line}' in page(site, 'api/lcm.html')
    assert f'id="__codelineno-0-{line}"' in page(site, 'source/lcm.html')


# --- it can fail ----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('body, said', [
    ('<a href="nowhere.html">x</a>', 'nowhere.html leads nowhere'), ('<a href="b.html#gone">x</a>', 'b.html#gone names no anchor'),
    ('<a href="#gone">x</a>', '#gone names no anchor'), ('<img src="a.png" alt="a cat">', 'a.png leads nowhere'),
    ('<img src="b.png">', 'b.png has no alt text'), ('<script src="https://x.org/y.js"></script>', 'loads https://x.org/y.js from elsewhere'),
    ('<a href="b.html#here">x</a><img src="b.png" alt="b"><a href="https://x.org">x</a>', '')])
def test_broken_html_is_found(tmp_path, body, said):
    (tmp_path/'a.html').write_text(body)
    (tmp_path/'b.html').write_text('<p id="here">')
    (tmp_path/'b.png').write_bytes(b'')
    found = build_docs.problems(tmp_path)
    assert len(found)==bool(said) and said in ''.join(found)


def test_a_link_out_of_the_site_is_named():
    with pytest.raises(build_docs.DocsError, match=r'nbs/a.ipynb: 99_none.ipynb is no page of the site'):
        build_docs.relink('see [this](99_none.ipynb)', 'nbs/a.ipynb', 'a.md')


def test_a_broken_link_stops_the_whole_build(tmp_path):
    "With the whole tool, on a copy of the repository without most of its notebooks."
    for name in ('tools', 'fsic_nb', 'figures', 'data'): shutil.copytree(root/name, tmp_path/name, ignore=lambda d, names: [n for n in names if Path(d, n).is_dir() and n!='splits'])
    for name in ('mkdocs.yml', 'CONTRIBUTING.md', 'SECURITY.md', 'CHANGELOG.md', 'settings.ini'): shutil.copy(root/name, tmp_path)
    for p in (tmp_path/'fsic_nb').glob('*.py'): p.unlink() if p.stem!='core' else None
    (tmp_path/'nbs').mkdir()
    core = (root/'nbs'/'00_core.ipynb').read_text(encoding='utf-8')
    (tmp_path/'nbs'/'00_core.ipynb').write_text(re.sub(r'\[(10_embed|00a_files)\]\(\w+\.ipynb\)', r'\1', core), encoding='utf-8')
    security = (root/'SECURITY.md').read_text(encoding='utf-8')
    (tmp_path/'SECURITY.md').write_text(re.sub(r'\[(\w+)\]\(nbs/\w+\.ipynb\)', r'\1', security), encoding='utf-8')
    (tmp_path/'data'/'README.md').write_text('# Data\n\n## One set\n\ntext\n')
    index = read_nb(root/'nbs'/'index.ipynb')
    def run(link):
        index.cells = index.cells[:1]
        index.cells[0].source = f'# T\n\n## How to read this\n\n| part | notebooks | what |\n|---|---|---|\n| 0 | [00_core](00_core.ipynb) | core |\n\n[x]({link})\n'
        notebooks.save(tmp_path/'nbs'/'index.ipynb', notebooks.cleaned(index))
        return subprocess.run([sys.executable, tmp_path/'tools'/'build_docs.py'], capture_output=True, text=True)
    assert 'no broken link' in (good := run('00_core.ipynb#summary')).stdout, good.stderr
    bad = run('00_core.ipynb#no-such-section')
    assert bad.returncode==1 and 'no-such-section' in bad.stderr


# --- Markdown -------------------------------------------------------------------------------------------------------------------

def test_links_figures_and_names():
    text = build_docs.relink('[a](02_scenes.ipynb#x) `pool` `[b](c)` [d](https://e.org) ![f](../figures/lcm.png)', 'nbs/12_lcm.ipynb', 'data/z.md', dict(pool='lcm'))
    assert text=='[a](../02_scenes.md#x) [`pool`](../api/lcm.md#pool) `[b](c)` [d](https://e.org) ![f](../figures/lcm.png)'
    figure = build_docs.figures('![](x.png)\n\n*Figure: two *cats*, $L=7$; [a](b.md) more, and so on. And more.*\n\ntext')
    assert '![Two cats, L=7; a more, and so on](x.png)' in figure and '<figcaption markdown="span">Two *cats*, $L=7$; [a](b.md) more, and so on. And more.</figcaption>' in figure


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path/'thesis.tex').write_text('x')
    with pytest.raises(build_docs.DocsError, match='holds something else than a site'): build_docs.build(tmp_path)
    assert (tmp_path/'thesis.tex').exists()


def test_formulas_that_cannot_be_shown_are_named():
    with pytest.raises(build_docs.DocsError, match=r'\\nosuch in'): build_docs.mathml('<span class="arithmatex">\\(\\nosuch x\\)</span>')
    assert 'ℒ' in build_docs.mathml('<div class="arithmatex">\\[\\mathcal L\\]</div>')


def test_building_needs_no_torch():
    code = "import sys; sys.path.insert(0, 'tools'); import build_docs; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, '-c', code], cwd=root).returncode==0


def test_nbdevs_own_half_works(tmp_path):
    "What `nbdev_docs` does before it calls Quarto, which is not needed here: in a copy, every notebook, without a warning."
    for name in ('nbs', 'fsic_nb', 'data/splits', 'data/results', 'data/configs'): shutil.copytree(root/name, tmp_path/name)
    shutil.copy(root/'settings.ini', tmp_path)
    code = "from pathlib import Path; from nbdev.serve import proc_nbs; print(len(list(Path(proc_nbs(n_workers=1, force=True)).glob('*.ipynb'))))"
    p = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env={k: v for k, v in os.environ.items() if k!='IN_TEST'}, capture_output=True, text=True)
    assert p.stdout.strip()==str(len(notebooks.notebooks())), p.stderr[-3000:]
    assert 'Found cells containing imports and other code' not in p.stderr


# --- in a browser -----------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='session')
def address(site):
    "The site served on this machine."
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *a): pass
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=site/'html'))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/'
    server.shutdown()


def test_search_dark_mode_and_anchors(browser, address):
    p = browser.new_page(color_scheme='dark')
    outside = []
    p.on('request', lambda r: outside.append(r.url) if r.url.startswith('http') and not r.url.startswith(address) else None)
    p.goto(address+'12_lcm.html#def-leave_one_out')
    assert 0<=p.locator('#def-leave_one_out').bounding_box()['y']<200                       # the anchor is where one lands
    scheme = 'document.body.getAttribute("data-md-color-scheme")'
    assert p.evaluate(scheme)=='slate'                                                     # as the system says
    p.locator('form[data-md-component=palette] label:visible').first.click()
    p.wait_for_function(f'{scheme}=="default"')
    p.keyboard.press('Control+k')
    p.keyboard.type('leave_one_out')
    p.locator('a[href*="api/lcm.html"]:visible', has_text='leave_one_out').first.wait_for()
    assert not outside


def test_no_page_is_wider_than_a_phone(browser, address, site):
    p = browser.new_context(viewport=dict(width=390, height=844), is_mobile=True).new_page()
    wide = []
    for f in sorted((site/'html').glob('*.html')):
        p.goto(address+f.name)
        if p.evaluate('document.documentElement.scrollWidth')>390: wide.append(f.name)
    assert not wide


def test_hints_are_hidden_and_set_as_text(site):
    html = page(site, '12_lcm.html')
    hints = re.findall(r'<details>.*?</details>', html, re.S)
    assert len(hints)>=2 and all('<p>' in h and '$' not in h for h in hints) and any('<math' in h for h in hints)
