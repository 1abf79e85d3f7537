"""The documentation site from the notebooks, without executing them, without a network and without torch.

    python tools/build_docs.py [--out _site]   writes OUT/html/index.html; fails on a broken link, anchor or picture

Saved outputs become Markdown pages in OUT/pages, the library's source becomes the API reference, Zensical makes HTML of
both (the theme's settings are in mkdocs.yml), and the HTML is checked.
"""
import argparse, ast, html, json, posixpath, re, shutil, struct, subprocess, sys, tokenize
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

from execnb.nbio import read_nb
from latex2mathml.converter import convert
from notebooks import directives, lib, nbs, notebooks, root, shown

class DocsError(Exception):
    "What is wrong with the site, one line each."


# --- where things go ----------------------------------------------------------------------------------------------------

def slug(title)->str: return re.sub(r'\W+', '-', title.lower()).strip('-')
def markdown(path)->str: return '\n\n'.join(c.source for c in read_nb(path).cells if c.cell_type=='markdown')


def parts()->list: # (number, what it is about, notebooks) of each part
    "The story: the rows of the table in nbs/index.ipynb."
    rows = re.findall(r'^\| *(\d+) *\| *(.+?) *\| *(.+?) *\|$', markdown(nbs/'index.ipynb'), re.M)
    return [(n, what, re.findall(r'\((\w+)\.ipynb\)', links)) for n, links, what in rows]


def datasets()->tuple: # introduction, {title: text}
    "data/README.md, a section a page."
    intro, *rest = re.split(r'^## ', (root/'data'/'README.md').read_text(encoding='utf-8'), flags=re.M)
    return intro, {t.split('\n', 1)[0]: f'# {t}' for t in rest}


def targets()->dict: # file of the repository -> page of the site
    "Where a link to a file of the repository leads."
    pages = {f'nbs/{p.name}': f'{p.stem}.md' for p in notebooks()}
    pages |= {f'figures/{p.name}': f'figures/{p.name}' for p in (root/'figures').glob('*.png')}
    return pages | {'data/README.md': 'data/index.md', 'README.md': 'index.md', 'CONTRIBUTING.md': 'contributing.md', 'CHANGELOG.md': 'changelog.md'}


# --- Markdown -----------------------------------------------------------------------------------------------------------

code = re.compile(r'(^(?P<f>`{3,}).*?^(?P=f)$|`[^`\n]+`)', re.M|re.S)


def outside_code(text, change, name=lambda c: c)->str:
    "`text` with `change` made outside of code and `name` made of code within a line."
    done, end = [], 0
    for m in code.finditer(text):
        done += [change(text[end:m.start()]), m[0] if m['f'] else name(m[0])]
        end = m.end()
    return ''.join(done + [change(text[end:])])


def relink(text, source, page, names={})->str: # Markdown of the site
    "Links written for the file `source` made to work on `page`; names of the library lead to the API reference."
    def to(target): return posixpath.relpath(target, posixpath.dirname(page) or '.')
    def link(m):
        file, _, anchor = m[1].partition('#')
        if '://' in m[1] or not file: return m[0]
        where = targets().get(posixpath.normpath(posixpath.join(posixpath.dirname(source), file)))
        if not where: raise DocsError(f'{source}: {m[1]} is no page of the site; link to a notebook, a figure or one of {", ".join(k for k in targets() if k.endswith(".md"))}')
        return f']({to(where)}{"#" if anchor else ""}{anchor})'
    def name(c):
        module = names.get(c.strip('`'))
        return f'[{c}]({to(f"api/{module}.md")}#{c.strip("`")})' if module else c
    return outside_code(text, lambda t: re.sub(r'\]\(([^()\s]+)\)', link, t), name)


def figures(text)->str:
    "Pictures with the paragraph `*Figure: ...*` after them as HTML figures; its first sentence serves as alt text where there is none."
    def figure(m):
        alt, src, caption = m.groups()
        plain = re.sub(r'[`*$\\\[\]"]|\(\S+\.md\S*\)', '', caption)
        alt = alt or re.split(r'(?<=[^.\d])[.;:](?= |$)', plain)[0]
        return f'<figure markdown="span">\n![{alt[:1].upper()+alt[1:]}]({src})\n<figcaption markdown="span">{caption[:1].upper()+caption[1:]}</figcaption>\n</figure>'
    return re.sub(r'^!\[([^\]]*)\]\(([^)]+)\)\n\n\*Figure: (.+)\*$', figure, text, flags=re.M)


def fence(text, kind): return f'````{{.{kind}}}\n{text.rstrip()}\n````'


def code_cell(cell, name, folder, defs)->list: # blocks of Markdown
    "A code cell of a notebook: what it defines, its source, its outputs (pictures as files in `folder`)."
    if {'hide', 'default_exp'} & cell.directives_.keys(): return []
    source = '\n'.join(l for l in cell.source.splitlines() if not l.startswith('#|')).strip()
    blocks = [fence(source, 'python')] if source and cell.directives_.get('echo:')!=['false'] else []
    if blocks and defs: blocks.insert(0, 'defines ' + ' '.join(f'[`{n}`](api/{m}.md#{n}){{#def-{n}}}' for n, m in defs) + '\n{.defines}')
    for k, o in enumerate(cell.outputs):
        if png := o.get('data', {}).get('image/png'):
            data, file = b64decode(png), f'{name}-{cell.idx_}-{k}.png'
            (folder/file).write_bytes(data)
            blocks.append(f'![](figures/{file})')
        elif text := shown(o).strip('`').strip('\n'): blocks.append(fence(text, 'output'))
    return blocks


def notebook_page(path, folder, names, born)->str: # Markdown
    "A notebook as a page; `born` tells what each cell defines."
    name, blocks = path.stem, []
    for c in directives(read_nb(path)).cells:
        if c.cell_type=='markdown': blocks.append(relink(c.source, f'nbs/{path.name}', f'{name}.md', names))
        else: blocks += code_cell(c, name, folder, born.get(c.id, []))
    return figures('\n\n'.join(blocks)) + '\n'


# --- API reference --------------------------------------------------------------------------------------------------------

class Module:
    "What the reference says about one module, read from its source."
    def __init__(self, path):
        self.name, self.text = path.stem, path.read_text(encoding='utf-8')
        self.lines, self.tree = self.text.splitlines(), ast.parse(self.text)
        with path.open('rb') as f: self.comments = {t.start[0]: t.string.strip('# ') for t in tokenize.tokenize(f.readline) if t.type==tokenize.COMMENT}
        self.public = next((ast.literal_eval(o.value) for o in self.tree.body if isinstance(o, ast.Assign) and o.targets[0].id=='__all__'), [])

    def cell(self, line): # (notebook, cell id)
        "Where a line of the module was written."
        m = next(m for l in reversed(self.lines[:line]) if (m := re.match(r'# %% \.\./nbs/(\w+)\.ipynb #(\w+)', l)))
        return m[1], m[2]

    def entries(self):
        "(qualified name, node) of everything public, the methods after their class."
        methods = {n: [] for n in self.public}
        for o in self.tree.body:
            inside = o.body if isinstance(o, ast.ClassDef) else []
            for f in [o, *inside]:
                owner = o.name if f is not o else patched(f)
                if isinstance(f, ast.FunctionDef) and owner in methods and shows(f): methods[owner].append((f'{owner}.{f.name}', f))
        for o in self.tree.body:
            name = getattr(o, 'name', None) or (o.targets[0].id if isinstance(o, ast.Assign) and isinstance(o.targets[0], ast.Name) else None)
            if name in self.public and not (isinstance(o, ast.FunctionDef) and patched(o)): yield from [(name, o), *methods[name]]


def patched(f)->str: # '' if it is not
    "The class that fastcore's `@patch` gives `f` to."
    names = [ast.unparse(d).split('(')[0] for d in getattr(f, 'decorator_list', [])]
    return ast.unparse(f.args.args[0].annotation) if 'patch' in names and f.args.args[0].annotation else ''


def shows(f): return ast.get_docstring(f) and (not f.name.startswith('_') or f.name.startswith('__'))


def parameters(module, f)->list: # (name, type, default, comment) of each; a node without arguments is a dataclass
    "The docments of a function, or of the fields of a dataclass."
    def show(o): return ast.unparse(o) if o else ''
    if isinstance(f, ast.ClassDef):
        rows = [(o.lineno, o.target.id, show(o.annotation), show(o.value)) for o in f.body if isinstance(o, ast.AnnAssign)]
    else:
        a, plain = f.args, f.args.posonlyargs+f.args.args
        pairs = list(zip(plain, [None]*(len(plain)-len(a.defaults))+a.defaults)) + [(a.vararg, None)]*bool(a.vararg) + list(zip(a.kwonlyargs, a.kw_defaults)) + [(a.kwarg, None)]*bool(a.kwarg)
        rows = [(p.lineno, {a.vararg: '*', a.kwarg: '**'}.get(p, '')+p.arg, show(p.annotation), show(d)) for p, d in pairs if p.arg not in ('self', 'cls')]
        if f.returns: rows.append((f.returns.end_lineno, 'returns', show(f.returns), ''))
    last = {line: k for k, (line, *_) in enumerate(rows)}   # a comment belongs to the last parameter of its line
    return [(*row[1:], module.comments.get(row[0], '') if last[row[0]]==k else '') for k, row in enumerate(rows)]


def signature(name, f)->str:
    "The call as one writes it, a line a parameter if it is long."
    args = [p.strip() for p in re.split(r', (?![^\[(]*[\])])', ast.unparse(f.args)) if p.strip().split(':')[0] not in ('self', 'cls')]
    end, one = ')' + (f' -> {ast.unparse(f.returns)}' if f.returns else ''), f'{name}({", ".join(args)}'
    return one+end if len(one+end)<90 else f'{name}(\n    ' + ',\n    '.join(args) + f',\n{end}'


def entry(module, name, o)->str: # Markdown
    "One public name: signature, docstring, docments, where it is born, its source."
    notebook, _ = module.cell(o.lineno)
    def cells(row): return ' | '.join(f'`{c}`' if c and k<3 else c.replace('|', '\\|').replace('*', '\\*').replace('_', '\\_').replace('<', '&lt;') for k, c in enumerate(row))
    init = next((m for m in getattr(o, 'body', []) if isinstance(o, ast.ClassDef) and getattr(m, 'name', '')=='__init__'), None)
    f = init or o
    blocks = [f'{"###" if "." in name else "##"} `{name}` {{#{name}}}']
    if isinstance(o, ast.Assign): blocks.append(fence('\n'.join(module.lines[o.lineno-1:min(o.end_lineno, o.lineno+11)]) + '\n# ...'*(o.end_lineno>o.lineno+11), 'python'))
    elif isinstance(f, ast.FunctionDef): blocks.append(fence(signature(name, f), 'python'))
    if not isinstance(o, ast.Assign):
        blocks.append(html.escape(ast.get_docstring(o) or '', quote=False).replace('*', '\\*').replace('_', '\\_').replace('$', '\\$'))
        rows = parameters(module, f)
        if rows: blocks.append('| parameter | type | default | what |\n|---|---|---|---|\n' + '\n'.join(f'| {cells(r)} |' for r in rows))
    where = f'[{notebook}](../{notebook}.md#def-{name.split(".")[0]})' if '.' not in name else f'[{notebook}](../{notebook}.md)'
    blocks.append(f'born in {where} · source: [fsic_nb/{module.name}.py, line {o.lineno}](../source/{module.name}.md#__codelineno-0-{o.lineno})\n{{.born}}')
    return '\n\n'.join(blocks)


def api_page(module)->str:
    "The reference of one module."
    return '\n\n'.join([f'# fsic_nb.{module.name}', f'> {ast.get_docstring(module.tree)}'] + [entry(module, n, o) for n, o in module.entries()]) + '\n'


# --- the site -------------------------------------------------------------------------------------------------------------

def write_pages(out)->list: # navigation
    "All Markdown pages and figures into `out`."
    for d in ('figures', 'api', 'source', 'data'): (out/d).mkdir(parents=True)
    def write(name, text): (out/name).write_text(text, encoding='utf-8'); return name
    modules = [m for p in sorted(lib.glob('*.py')) if (m := Module(p)).public]
    names, born = {}, {}
    for m in modules:
        for name, o in m.entries():
            if '.' not in name: names[name] = None if name in names else m.name   # a name of two modules leads nowhere
            if '.' not in name: born.setdefault(m.cell(o.lineno)[1], []).append((name, m.name))
        write(f'api/{m.name}.md', api_page(m))
        write(f'source/{m.name}.md', f'---\nsearch:\n  exclude: true\n---\n\n# Source of fsic_nb.{m.name}\n\n````{{.python linenums="1"}}\n{m.text}````\n')
    for p in notebooks(): write(f'{p.stem}.md', notebook_page(p, out/'figures', names, born))
    for p in (root/'figures').glob('*.png'): shutil.copy(p, out/'figures')
    shutil.copy(root/'tools'/'docs.css', out)
    for name in ('CONTRIBUTING', 'CHANGELOG'): write(f'{name.lower()}.md', relink((root/f'{name}.md').read_text(encoding='utf-8'), f'{name}.md', f'{name.lower()}.md'))
    reading = re.search(r'^## (How to read.*?)(?=^## )', markdown(nbs/'index.ipynb')+'\n## ', re.M|re.S)[1]
    write('reading.md', relink(f'# {reading}', 'nbs/index.ipynb', 'reading.md', names))
    intro, sections = datasets()
    data = [{t: write(f'data/{slug(t)}.md', relink(s, 'data/README.md', f'data/{slug(t)}.md'))} for t, s in sections.items()]
    links = '\n'.join(f'- [{t}]({slug(t)}.md)' for t in sections)
    data.insert(0, {'Overview': write('data/index.md', relink(intro, 'data/README.md', 'data/index.md') + f'\n{links}\n')})
    order = {m.cell(len(m.lines))[0]: m.name for m in modules}
    story = [{f'Part {n}: {what}': [{s: f'{s}.md'} for s in stems]} for n, what, stems in parts()]
    api = [{order[s]: f'api/{order[s]}.md'} for _, _, stems in parts() for s in stems if s in order]
    return [{'fsic_nb': 'index.md'}, {'How to read this': 'reading.md'}, *story, {'Data': data}, {'API reference': api},
            {'Contributing': 'contributing.md'}, {'Changelog': 'changelog.md'}]


def mathml(page)->str:
    "The page with its formulas as MathML."
    def one(m):
        tex = re.sub(r'\\arg\b', r'\\operatorname{arg}', html.unescape(m[2])[2:-2])
        out = convert(tex, display='block' if m[1]=='div' else 'inline')
        if left := re.search(r'\\\w+', out): raise DocsError(f'{left[0]} in {tex!r} cannot be shown as MathML')
        return f'<{m[1]} class="arithmatex" role="math">{out}</{m[1]}>'
    return re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', one, page, flags=re.S)


class Page(HTMLParser):
    "The anchors, links and pictures of an HTML page."
    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.images = set(), [], []
        self.feed(text)
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.ids |= {a.get('id'), a.get('name')} if tag=='a' else {a.get('id')}
        self.links += [a[k] for k in ('href', 'src') if a.get(k)] if tag in ('a', 'img', 'link', 'script') else []
        if tag=='img': self.images.append((a.get('src'), a.get('alt') or ''))


def problems(site)->list: # sentences
    "Broken links and anchors, pictures without alt text, and what a page would load from elsewhere."
    pages, found = {p: Page(p.read_text(encoding='utf-8')) for p in sorted(site.rglob('*.html')) if p.name!='404.html'}, []
    for path, page in pages.items():
        where = path.relative_to(site).as_posix()
        found += [f'{where}: {src} has no alt text; write *Figure: ...* after it' for src, alt in page.images if not alt]
        for link in page.links:
            if re.match(r'(https?:|mailto:|data:)', link): continue
            file, _, anchor = unquote(link).partition('#')
            to = (path.parent/file).resolve() if file else path
            if to.is_dir(): to /= 'index.html'
            if not to.exists(): found.append(f'{where}: {link} leads nowhere')
            elif anchor and to in pages and anchor not in pages[to].ids: found.append(f'{where}: {link} names no anchor of that page')
    return found


def build(out):
    "Everything: pages, HTML, formulas, checks."
    out = out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    nav = write_pages(out/'pages')
    settings = (root/'mkdocs.yml').read_text(encoding='utf-8')
    (out/'mkdocs.yml').write_text(f'{settings}\ndocs_dir: pages\nsite_dir: html\nnav: {json.dumps(nav)}\n', encoding='utf-8')
    run = subprocess.run([sys.executable, '-m', 'zensical', 'build', '--strict', '-f', out/'mkdocs.yml'], capture_output=True, text=True)
    if run.returncode: raise DocsError(run.stdout+run.stderr)
    for p in (out/'html').rglob('*.html'): p.write_text(mathml(p.read_text(encoding='utf-8')), encoding='utf-8')
    if found := problems(out/'html'): raise DocsError('\n'.join(found))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=root/'_site', help='folder to make; what it held is lost')
    out = parser.parse_args().out
    try: build(out)
    except DocsError as e: sys.exit(str(e))
    print(f'{len(list((out/"html").rglob("*.html")))} pages, no broken link: open {out/"html"/"index.html"}')


if __name__=='__main__': main()
