"""The documentation site from the notebooks, without executing them, without a network and without torch.

    python tools/build_docs.py [--out _site]   writes OUT/html/index.html; fails on a broken link, anchor or picture

Saved outputs become Markdown pages in OUT/pages, the library's source becomes the API reference, docs/ has the pages that
are neither (tools/site_pages.py). Zensical makes HTML of all (the theme's settings are in mkdocs.yml), and it is checked.
"""
import argparse, html, json, posixpath, re, shutil, subprocess, sys
from base64 import b64decode
from functools import cache
from html.parser import HTMLParser
from itertools import groupby
from pathlib import Path
from string import ascii_letters
from unicodedata import lookup
from urllib.parse import unquote

from execnb.nbio import read_nb
from latex2mathml.converter import convert

from api_docs import Module, api_page, code, fence, outside_code
from notebooks import directives, lib, nbs, notebooks, root, shown
from site_pages import DocsError, docs, link, pages


# --- where things go ----------------------------------------------------------------------------------------------------

def slug(title)->str: return re.sub(r'\W+', '-', title.lower()).strip('-')
def page_name(stem)->str: return 'overview' if stem=='index' else stem   # the site begins with docs/index.md
def markdown(path)->str: return '\n\n'.join(c.source for c in read_nb(path).cells if c.cell_type=='markdown')


def parts()->list: # (number, what it is about, notebooks) of each part
    "The story: the rows of the table in nbs/index.ipynb."
    rows = re.findall(r'^\| *(\d+) *\| *(.+?) *\| *(.+?) *\|$', markdown(nbs/'index.ipynb'), re.M)
    return [(n, what, re.findall(r'\((\w+)\.ipynb\)', links)) for n, links, what in rows]


def datasets()->tuple: # introduction, {title: text}
    "data/README.md, a section a page."
    intro, *rest = re.split(r'^## ', (root/'data'/'README.md').read_text(encoding='utf-8'), flags=re.M)
    return intro, {t.split('\n', 1)[0]: f'# {t}' for t in rest}


@cache
def targets()->dict: # file of the repository, or section of data/README.md -> page of the site
    "Where a link to a file of the repository leads."
    to = {f'nbs/{p.name}': f'{page_name(p.stem)}.md' for p in notebooks()}
    to |= {f'figures/{p.name}': f'figures/{p.name}' for p in (root/'figures').glob('*.png')}
    to |= {f'docs/{p.name}': p.name for p in docs.glob('*.md')} | {'docs/reading.md': 'reading.md'}
    to |= {f'data/README.md#{slug(t)}': f'data/{slug(t)}.md' for t in datasets()[1]}
    return to | {'data/README.md': 'data/index.md', 'README.md': 'overview.md', 'CONTRIBUTING.md': 'contributing.md', 'CHANGELOG.md': 'changelog.md', 'SECURITY.md': 'security.md'}


# --- Markdown -----------------------------------------------------------------------------------------------------------

def relink(text, source, page, names={})->str: # Markdown of the site
    "Links written for the file `source` made to work on `page`; names of the library lead to the API reference."
    def to(target): return posixpath.relpath(target, posixpath.dirname(page) or '.')
    def link(m):
        file, _, anchor = m[1].partition('#')
        if '://' in m[1] or not file: return m[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), file))
        if where := targets().get(f'{path}#{anchor}'): return f']({to(where)})'
        where = targets().get(path)
        if not where: raise DocsError(f'{source}: {m[1]} is no page of the site; link to a notebook, a figure or one of {", ".join(k for k in targets() if k.endswith(".md"))}')
        return f']({to(where)}{"#" if anchor else ""}{anchor})'
    def name(c):
        module = names.get(c.strip('`'))
        return f'[{c}]({to(f"api/{module}.md")}#{c.strip("`")})' if module else c
    def change(t): return re.sub(r'^(\$\$.+?\$\$)$', r'\n\1\n', re.sub(r'\]\(([^()\s]+)\)', link, t), flags=re.M|re.S)   # a formula is a block of its own
    return outside_code(text, change, name)


def figures(text)->str:
    "Pictures with the paragraph `*Figure: ...*` after them as HTML figures; its first sentence serves as alt text where there is none."
    def figure(m):
        alt, src, caption = m.groups()
        plain = re.sub(r'[`*$\\\[\]"]|\(\S+\.md\S*\)', '', caption)
        first, *more = re.split(r'(?<=\.) ', plain)
        alt = alt or ' '.join([first, *more[:len(first)<30]]).rstrip('.')   # a very short sentence needs the next one
        return f'<figure markdown="span">\n![{alt[:1].upper()+alt[1:]}]({src}){{#{anchor(src)}}}\n<figcaption markdown="span">{caption[:1].upper()+caption[1:]}</figcaption>\n</figure>'
    return re.sub(r'^!\[([^\]]*)\]\(([^)]+)\)\n\n\*Figure: (.+)\*$', figure, text, flags=re.M)


def anchor(src)->str: return 'fig-' + slug(Path(src).stem)


def thumbnails(text)->list: # for each figure of a page: its anchor, file, alt text and the caption's first sentence
    "What the gallery shows of a page."
    found = re.findall(r'<figure markdown="span">\n!\[(.*)\]\((.+?)\){#(.+?)}\n<figcaption markdown="span">(.*)</figcaption>', text)
    def first(caption): return re.split(r'(?<=[.!?]) (?=[A-Z])', re.sub(r'\[([^\]]+)\]\([^)]+\)', r'\1', caption))[0]
    return [dict(id=i, alt=alt, src=src, caption=first(caption)) for alt, src, i, caption in found]


def code_cell(cell, name, folder, defs)->list: # blocks of Markdown
    "A code cell of a notebook: what it defines, its source, its outputs (pictures as files in `folder`)."
    if {'hide', 'default_exp'} & cell.directives_.keys(): return []
    source = '\n'.join(l for l in cell.source.splitlines() if not l.startswith('#|')).strip()
    blocks = [fence(source, 'python')] if source and cell.directives_.get('echo:')!=['false'] else []
    if blocks and defs: blocks.insert(0, 'defines ' + ' '.join(f'[`{n}`](api/{m}.md#{n}){{#def-{n}}}' for n, m in defs) + '\n{.defines}')
    for k, o in enumerate(cell.outputs):
        if png := o.get('data', {}).get('image/png'):
            data, file = b64decode(png), f'{name}-{cell.id}-{k}.png'
            (folder/file).write_bytes(data)
            blocks.append(f'![](figures/{file})')
        elif text := shown(o).strip('`').strip('\n'): blocks.append(fence(text, 'text .output'))
    return blocks


def notebook_page(path, folder, names, born)->str: # Markdown
    "A notebook as a page; `born` tells what each cell defines."
    name, blocks = path.stem, []
    page = f'{page_name(name)}.md'
    for c in directives(read_nb(path)).cells:
        if c.cell_type=='markdown': blocks.append(relink(c.source, f'nbs/{path.name}', page, names))
        else: blocks += code_cell(c, name, folder, born.get(c.id, []))
    title, lines, rest = blocks[0].partition('\n')
    source = link(f'nbs/{path.name}', 'source')
    blocks[0] = f'{title}\n\n[Download this notebook](notebooks/{path.name}){{download={path.name}}} · {source}\n{{.links}}\n{lines}{rest}'
    return figures('\n\n'.join(blocks)).replace('<details><summary>', '<details markdown="1"><summary>') + '\n'


# --- the site -------------------------------------------------------------------------------------------------------------

def write_pages(out)->list: # navigation
    "All Markdown pages and figures into `out`."
    for d in ('figures', 'api', 'source', 'data', 'notebooks'): (out/d).mkdir(parents=True)
    def write(name, text): (out/name).write_text(text, encoding='utf-8'); return name
    modules = [m for p in sorted(lib.glob('*.py')) if (m := Module(p)).public]
    names, born = {}, {}
    for m in modules:
        for name, o in m.entries():
            if '.' not in name: names[name] = None if name in names else m.name   # a name of two modules leads nowhere
            if '.' not in name: born.setdefault(m.cell(o.lineno)[1], []).append((name, m.name))
        write(f'api/{m.name}.md', api_page(m, link(f'{lib.name}/{m.name}.py', 'source')))
        write(f'source/{m.name}.md', f'---\nsearch:\n  exclude: true\n---\n\n# Source of fsic_nb.{m.name}\n\n````{{.python linenums="1"}}\n{m.text}````\n')
    texts = {p: notebook_page(p, out/'figures', names, born) for p in notebooks()}
    for p, text in texts.items():
        write(f'{page_name(p.stem)}.md', text)
        shutil.copy(p, out/'notebooks')
    for p in (root/'figures').glob('*.png'): shutil.copy(p, out/'figures')
    shutil.copy(root/'tools'/'docs.css', out)
    for name in ('CONTRIBUTING', 'SECURITY', 'CHANGELOG'): write(f'{name.lower()}.md', relink((root/f'{name}.md').read_text(encoding='utf-8'), f'{name}.md', f'{name.lower()}.md'))
    reading = re.search(r'^## (How to read.*?)(?=^## )', markdown(nbs/'index.ipynb')+'\n## ', re.M|re.S)[1]
    write('reading.md', relink(f'# {reading}', 'nbs/index.ipynb', 'reading.md', names))
    intro, sections = datasets()
    data = [{t: write(f'data/{slug(t)}.md', relink(s, 'data/README.md', f'data/{slug(t)}.md'))} for t, s in sections.items()]
    links = '\n'.join(f'- [{t}]({slug(t)}.md)' for t in sections)
    data.insert(0, {'Overview': write('data/index.md', relink(intro, 'data/README.md', 'data/index.md') + f'\n{links}\n')})
    story = dict(modules=modules, parts=[('Overview', ['overview']), *((f'Part {n}: {what}', stems) for n, what, stems in parts())], figures=[(page_name(p.stem), title_of(p), thumbnails(text)) for p, text in texts.items()])
    for name, text in pages(story, relink).items(): write(f'{name}.md', figures(text))
    return navigation(modules, data)


def title_of(path)->str: return markdown(path).split('\n', 1)[0].lstrip('# ')


def navigation(modules, data)->list:
    "The order of the pages; what answers questions comes before the story."
    order = {m.cell(len(m.lines))[0]: m.name for m in modules}
    api = [{order[s]: f'api/{order[s]}.md'} for _, _, stems in parts() for s in stems if s in order]
    first = [{title_of(p): f'{p.stem}.md'} for p in notebooks() if p.stem.endswith('_howto')]
    story = [{f'Part {n}: {what.split(";")[0]}': kept} for n, what, stems in parts()
             if (kept := [{s: f'{s}.md'} for s in stems if not s.endswith('_howto')])]
    return [{'Home': 'index.md'}, {'Install': 'install.md'}, *first, {'Tag my images': 'tag.md'}, {'Learn the method': 'learn.md'},
            {'Compare methods': 'compare.md'}, {'Overview and results': 'overview.md'}, {'How to read this': 'reading.md'}, *story,
            {'Gallery': 'gallery.md'}, {'Data': data}, {'API by task': 'names.md'}, {'API reference': api}, {'Cite': 'cite.md'},
            {'Contributing': 'contributing.md'}, {'Security': 'security.md'}, {'Changelog': 'changelog.md'}]


tex = r'<(span|div) class="arithmatex">(.*?)</\1>'   # how Zensical leaves a formula
letters = dict(script='SCRIPT', bold='BOLD', **{'double-struck': 'DOUBLE-STRUCK', 'fraktur': 'FRAKTUR'})


def letter(m)->str:
    "A letter of a special alphabet as its own character: browsers no longer honour `mathvariant`."
    kind, c = letters[m[1]], m[2]
    if c not in ascii_letters: return f'<mi>{c}</mi>'
    name = f'{kind} {"CAPITAL" if c.isupper() else "SMALL"} {c.upper()}'
    try: return f'<mi>{lookup("MATHEMATICAL "+name)}</mi>'
    except KeyError: return f'<mi>{lookup(name.replace("FRAKTUR", "BLACK-LETTER"))}</mi>'


def formula(tex, display='inline')->str: # MathML
    "A formula that browsers show without a program."
    known = re.sub(r'\\arg\b', r'\\operatorname{arg}', tex).replace(r'\|', '‖')   # what the converter does not know, or not after \Big
    out = convert(known, display=display)
    out = re.sub(rf'<mi mathvariant="({"|".join(letters)})">(.)</mi>', letter, out)
    if left := re.search(r'\\(\w+|.)', out): raise DocsError(f'{left[0]} in {tex!r} cannot be shown as MathML')
    return out


def mathml(page)->str:
    "The page with its formulas as MathML."
    def one(m): return f'<{m[1]} class="arithmatex" role="math">{formula(html.unescape(m[2])[2:-2], "block" if m[1]=="div" else "inline")}</{m[1]}>'
    return re.sub(tex, one, page, flags=re.S)


def index_as_read(site):
    "Give the search index of `site` formulas as one reads them; Zensical leaves them as they are written."
    index = json.loads((site/'search.json').read_text(encoding='utf-8'))
    def one_line(raw): return ' '.join(raw.split())
    def read(raw): return html.escape(html.unescape(re.sub(r'<.*?>', '', formula(html.unescape(raw)[2:-2]))), quote=False)
    for page, items in groupby(index['items'], lambda i: i['location'].partition('#')[0]):
        words = {one_line(raw): read(raw) for _, raw in re.findall(tex, (site/page).read_text(encoding='utf-8'), flags=re.S)}
        if words: pattern = re.compile('|'.join(re.sub(r'(\\ )+', r'\\s+', re.escape(raw)) for raw in words))
        for item in items if words else []: item |= {k: pattern.sub(lambda m: words[one_line(m[0])], item[k]) for k in ('title', 'text')}
    (site/'search.json').write_text(json.dumps(index, ensure_ascii=False), encoding='utf-8')


class Page(HTMLParser):
    "The anchors, links and pictures of an HTML page."
    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.images = set(), [], []
        self.feed(text)
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.ids |= {a.get('id'), a.get('name')} if tag=='a' else {a.get('id')}
        loads = tag in ('img', 'script', 'iframe') or a.get('rel') in ('stylesheet', 'preload', 'modulepreload', 'icon')
        self.links += [(loads, a[k]) for k in ('href', 'src') if a.get(k) and tag in ('a', 'img', 'link', 'script', 'iframe')]
        if tag=='img': self.images.append((a.get('src'), a.get('alt') or ''))


def problems(site)->list: # sentences
    "Broken links and anchors, pictures without alt text, and what a page would load from elsewhere."
    files = {p.relative_to(site).as_posix() for p in site.rglob('*') if p.is_file()}
    pages = {f: Page((site/f).read_text(encoding='utf-8')) for f in sorted(files) if f.endswith('.html') and f!='404.html'}
    found = []
    for where, page in pages.items():
        found += [f'{where}: {src} has no alt text; write *Figure: ...* after it' for src, alt in page.images if not alt]
        for loads, link in page.links:
            if loads and re.match(r'(https?:)?//', link): found.append(f'{where}: loads {link} from elsewhere; the site must work offline')
            if re.match(r'(\w+:|//)', link): continue
            file, _, anchor = unquote(link).partition('#')
            to = posixpath.normpath(posixpath.join(posixpath.dirname(where), file)) if file else where
            if to not in files: to = posixpath.normpath(posixpath.join(to, 'index.html'))   # a folder's own page
            if to not in files: found.append(f'{where}: {link} leads nowhere')
            elif anchor and to in pages and anchor not in pages[to].ids: found.append(f'{where}: {link} names no anchor of that page')
    return found


def build(out):
    "Everything: pages, HTML, formulas, checks."
    out = out.resolve()
    if out.exists() and any(out.iterdir()) and not (out/'mkdocs.yml').exists(): raise DocsError(f'{out} holds something else than a site; name an empty folder')
    shutil.rmtree(out, ignore_errors=True)
    nav = write_pages(out/'pages')
    settings = (root/'mkdocs.yml').read_text(encoding='utf-8')
    (out/'mkdocs.yml').write_text(f'{settings}\ndocs_dir: pages\nsite_dir: html\nnav: {json.dumps(nav)}\n', encoding='utf-8')
    run = subprocess.run([sys.executable, '-m', 'zensical', 'build', '--strict', '-f', out/'mkdocs.yml'], capture_output=True, text=True)
    if run.returncode: raise DocsError(re.sub(r'\x1b\[[\d;]*m', '', run.stdout+run.stderr).split('Traceback')[0])   # without colours
    index_as_read(out/'html')
    for p in (out/'html').rglob('*.html'): p.write_text(mathml(p.read_text(encoding='utf-8')), encoding='utf-8')
    if found := problems(out/'html'): raise DocsError('\n'.join(found))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=root/'_site', help='folder to make; what it held is lost')
    out = parser.parse_args().out
    try: build(out)
    except DocsError as e: sys.exit(str(e))
    print(f'{len(list((out/"html").rglob("*.html")))} pages, no broken link: open {out}/html/index.html\n'
          f'(with search: {sys.executable} -m http.server -d {out}/html, then http://localhost:8000)')


if __name__=='__main__': main()
