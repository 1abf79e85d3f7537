"The site: built once, judged by its HTML, and proven able to fail."
import html, importlib, inspect, json, os, re, shutil, subprocess, sys, threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote_plus

import pytest
from execnb.nbio import read_nb
from fastcore.docments import docments

import api_docs, build_docs, notebooks, site_pages, sizes
from build_docs import page_name

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
    want = [page_name(p.stem) for p in notebooks.notebooks()] + [f'api/{m}' for m in modules] + [f'data/{build_docs.slug(t)}' for t in build_docs.datasets()[1]]
    missing = [w for w in want if not (site/'html'/f'{w}.html').exists()]
    assert not missing
    nav = page(site, 'install.html')
    assert not [w for w in want if f'href="./{w}.html"' not in nav]


def test_results_are_the_same_everywhere(site):
    "The numbers of the result tables: README, its page and saved outputs of nbs/index.ipynb."
    outputs = ''.join(build_docs.shown(o) for c in read_nb(root/'nbs'/'index.ipynb').cells for o in c.get('outputs', []))
    numbers, readme, first = re.findall(r'\d+\.\d ± \d+\.\d', outputs), (root/'README.md').read_text(encoding='utf-8'), page(site, 'overview.html')
    assert len(numbers)>10 and all(n in readme and n in first for n in numbers)


def test_every_figure_is_on_the_site_with_caption_and_alt_text(site):
    for p in notebooks.notebooks():
        cells = [c for c in notebooks.directives(read_nb(p)).cells if 'hide' not in c.get('directives_', {})]
        n = sum('image/png' in o.get('data', {}) for c in cells for o in c.get('outputs', []))
        html = page(site, f'{page_name(p.stem)}.html')
        assert len(re.findall(rf'<img [^>]*src="figures/{p.stem}-', html))==n
        assert html.count('<figcaption')>=n and 'alt=""' not in html


def test_nothing_is_left_of_markdown_and_tex(site):
    "No sign of a source is read as text: not in words, formulas, captions, alt texts, names or what is searched."
    def left(text, *signs): return [text[max(m.start()-30, 0):m.end()+30] for m in re.finditer('|'.join(signs), text)]
    for p in sorted((site/'html').rglob('*.html')):
        names = re.sub(r'<(script|pre|style).*?</\1>', '', p.read_text(encoding='utf-8'), flags=re.S)   # with those set as code
        assert not left(names, r'\w\\_'), p.name
        words = re.sub(r'<code.*?</code>', '', names, flags=re.S)
        assert not left(words, r'\\', r'\$\$', r'\*Figure', '{#', r'{\.', 'mathvariant="script"', '<!-- site'), p.name
    for item in json.loads((site/'html'/'search.json').read_text(encoding='utf-8'))['items']:
        assert not left(re.sub(r'<code>.*?</code>', '', item['title']+item['text'], flags=re.S), r'\\', '&amp;#'), item['location']
    assert page(site, '12_lcm.html').count('<math')>20 and 'ℓ' in html.unescape(page(site, '12_lcm.html'))


def test_the_site_is_searchable_and_works_alone(site):
    index = json.loads((site/'html'/'search.json').read_text(encoding='utf-8'))
    assert 'leave_one_out' in json.dumps(index) and 'ρjk' in json.dumps(index, ensure_ascii=False)   # a formula as one reads it
    first = page(site, 'index.html')
    for what in ('name="viewport"', 'data-md-color-scheme="slate"', 'content.code.copy'): assert what in first


# --- the site by goal ---------------------------------------------------------------------------------------------------------

def test_the_first_page_is_one_sentence_one_picture_and_three_doors(site):
    body = re.search(r'<article.*?</article>', page(site, 'index.html'), re.S)[0]
    assert len(re.findall('<h1', body))==len(re.findall('<img', body))==1
    assert re.findall(r'class="door" href="(.+?)"><strong>(.+?)</strong>', body)==[
        ('tag.html', 'Tag my images'), ('learn.html', 'Learn the method'), ('compare.html', 'Compare methods')]


def test_every_extra_has_a_row_with_its_size(site):
    text = html.unescape(page(site, 'install.html'))
    for name in site_pages.extras():
        command = f'pip install ".[{name}]"' if name else 'pip install .'
        assert re.search(rf'<td><code>{re.escape(command)}</code></td>\s*<td>.{{20,}}</td>(\s*<td>(\d[\d.]* [GM]B|under 1 MB)</td>){{2}}', text), name


def test_sizes_count_what_a_package_requires_and_extras_only_when_asked():
    here = sizes.closure(['jinja2'])
    assert here=={'jinja2', 'markupsafe'} and all(sizes.on_disk(n)>0 for n in here)
    assert 'pillow' not in sizes.closure(['pandas']) and sizes.closure(['jinja2[i18n]'])>here


def test_an_extra_or_module_without_a_place_stops_the_build(monkeypatch):
    monkeypatch.setattr(site_pages, 'extras', lambda: {'new': []})
    with pytest.raises(build_docs.DocsError, match='docs/extras.json: say what the extra new is for'): site_pages.extras_table({})
    with pytest.raises(build_docs.DocsError, match='docs/names.md: .* belongs to no task'):
        site_pages.pages(dict(modules=[*modules.values(), type('M', (), dict(name='new'))]), lambda text, *_: text)


def test_every_public_name_is_listed_by_task(site):
    text = page(site, 'names.html')
    assert '<td></td>' not in text
    assert not [n for m in modules.values() for n in m.public if text.count(f'href="api/{m.name}.html#{n}"')!=1]


def test_the_gallery_leads_to_every_figure(site):
    gallery = page(site, 'gallery.html')
    for p in notebooks.notebooks():
        there = re.findall(r'<img[^>]* id="(fig-.+?)"', page(site, f'{page_name(p.stem)}.html'))
        assert len(there)==len(set(there)) and re.findall(rf'<a href="{page_name(p.stem)}.html#(.+?)"><img', gallery)==there


def test_a_notebook_can_be_downloaded_and_turned_like_a_page(site):
    for p in notebooks.notebooks():
        assert f'href="notebooks/{p.name}"' in page(site, f'{page_name(p.stem)}.html')
        assert (site/'html'/'notebooks'/p.name).read_bytes()==p.read_bytes()
    text, url = page(site, '12_lcm.html'), site_pages.settings()['git_url']
    footer = re.search('<nav class="md-footer__inner.*?</nav>', text, re.S)[0]
    assert re.findall(r'href="\./(\w+).html"', footer)==['11_prototypes', '13_interact']
    assert f'{url}/blob/main/nbs/12_lcm.ipynb' in text and f'{url}/blob/main/fsic_nb/lcm.py' in page(site, 'api/lcm.html')


def test_what_to_cite_is_what_the_citation_file_says(site):
    text = html.unescape(re.sub('<.*?>', '', page(site, 'cite.html')))
    for want in ('@software{fsic_nb', 'arXiv:2412.13732', '10.1609/aaai.v36i3.20205', 'Yan and others', '@inproceedings{yan2022'): assert want in text


def test_commands_of_the_pages_are_those_that_are_tested():
    "README's commands run in tests/test_readme.py; docs/ repeats some of them."
    def commands(text): return {re.sub(r'\s+#.*', '', l) for block in re.findall(r'^```sh\n(.*?)^```', text, re.M|re.S) for l in block.splitlines() if l.startswith('fsic_')}
    known = commands((root/'README.md').read_text(encoding='utf-8')) | {'fsic_tag --help', 'fsic_demo --quick'}
    assert not {c for p in site_pages.docs.glob('*.md') for c in commands(p.read_text(encoding='utf-8'))} - known


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
    (tmp_path/'docs').mkdir()
    for p in site_pages.docs.glob('*.md'): (tmp_path/'docs'/p.name).write_text(f'# {p.stem}\n\n<!-- site: names_table core -->\n')
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
    text = build_docs.relink('[a](02_scenes.ipynb#x) `pool` `[b](c)` [d](https://e.org) ![f](../figures/method.png)', 'nbs/12_lcm.ipynb', 'data/z.md', dict(pool='lcm'))
    assert text=='[a](../02_scenes.md#x) [`pool`](../api/lcm.md#pool) `[b](c)` [d](https://e.org) ![f](../figures/method.png)'
    figure = build_docs.figures('![](x.png)\n\n*Figure: two *cats*, $L=7$; [a](b.md) more, and so on. And more.*\n\ntext')
    assert '![Two cats, L=7; a more, and so on](x.png)' in figure and '<figcaption markdown="span">Two *cats*, $L=7$; [a](b.md) more, and so on. And more.</figcaption>' in figure


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path/'thesis.tex').write_text('x')
    with pytest.raises(build_docs.DocsError, match='holds something else than a site'): build_docs.build(tmp_path)
    assert (tmp_path/'thesis.tex').exists()


def test_formulas_that_cannot_be_shown_are_named():
    for bad in (r'\nosuch', r'\text{soft\_max}'):
        with pytest.raises(build_docs.DocsError, match=r'\\(nosuch|_max) in'): build_docs.mathml(rf'<span class="arithmatex">\({bad} x\)</span>')
    assert 'ℒ' in build_docs.mathml('<div class="arithmatex">\\[\\mathcal L\\]</div>')


def test_building_needs_no_torch():
    code = "import sys; sys.path.insert(0, 'tools'); import build_docs; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, '-c', code], cwd=root).returncode==0


@pytest.mark.skipif(os.environ.get('FSIC_SLOW')!='1', reason='half a minute for what `make docs` does not need: FSIC_SLOW=1 runs it')
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
    from playwright.sync_api import expect
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
    for words, right in (('own data', 'tag|50_howto|data/images-of-your-own'), ('install', 'install'), ('threshold', 'tag|50_howto|35_confidence'), ('cite', 'cite')):
        p.keyboard.press('Control+a')
        p.keyboard.insert_text(words)
        first = p.locator('ol li:first-child a[href*="?h="]').first
        expect(first, words).to_have_attribute('href', re.compile(rf'^{address}({right})\.html\?h={re.escape(quote_plus(words))}'), timeout=15_000)   # what is found first
    assert not outside


def test_the_first_page_on_a_phone(browser, address):
    p = browser.new_context(viewport=dict(width=390, height=844), is_mobile=True).new_page()
    p.goto(address)
    doors = [d.bounding_box() for d in p.locator('.door').all()]
    assert len(doors)==3 and all(d['x']>=0 and d['width']>300 and d['y']+d['height']<=844 for d in doors)   # whole, without a touch
    assert all(a['y']+a['height']<=b['y'] for a, b in zip(doors, doors[1:]))
    sizes = p.evaluate('[...document.querySelectorAll("article *")].filter(e => [...e.childNodes].some(t => t.nodeType==3 && t.data.trim())).map(e => parseFloat(getComputedStyle(e).fontSize))')
    assert len(sizes)>8 and min(sizes)>=14
    assert p.locator('article img').evaluate('i => i.complete && i.naturalWidth>0')


def test_no_page_is_wider_than_a_phone(browser, address, site):
    p = browser.new_context(viewport=dict(width=390, height=844), is_mobile=True).new_page()
    p.route(re.compile(r'\.png$|search'), lambda r: r.abort())   # a figure is never wider than its column, and takes longest to draw
    cut = """[...document.querySelectorAll('math')].filter(m => { let e = m, right = m.getBoundingClientRect().right
        if (right<=390) return false
        while ((e = e.parentElement)) if (['auto', 'scroll'].includes(getComputedStyle(e).overflowX)) return false
        return true }).length"""   # formulas out of the page that cannot be scrolled to
    wide = []
    for f in sorted((site/'html').glob('*.html')):
        p.goto(address+f.name, wait_until='domcontentloaded')
        if p.evaluate('document.documentElement.scrollWidth')>390 or p.evaluate(cut): wide.append(f.name)
    assert not wide


def test_hints_are_hidden_and_set_as_text(site):
    html = page(site, '12_lcm.html')
    hints = re.findall(r'<details>.*?</details>', html, re.S)
    assert len(hints)>=2 and all('<p>' in h and '$' not in h for h in hints) and any('<math' in h for h in hints)
