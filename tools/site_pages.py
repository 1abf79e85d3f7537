"""The pages of the site that are no notebook: docs/*.md, with tables and lists made from the repository. Used by tools/build_docs.py.

A line `<!-- site: NAME ARGUMENTS -->` in docs/*.md is replaced by what the function NAME of `made` returns.
"""
import ast, json, re
from configparser import ConfigParser
from pathlib import Path

import yaml

from api_docs import plain

root = Path(__file__).resolve().parents[1]
docs = root/'docs'


class DocsError(Exception):
    "What is wrong with the site, one line each."


def settings()->dict:
    "settings.ini."
    parser = ConfigParser(delimiters=['='])
    parser.read(root/'settings.ini', encoding='utf-8')
    return parser['DEFAULT']


def extras()->dict: # name -> requirements; '' is the library without any
    "What can be installed: the extras of settings.ini; `dev` has all of them, as setup.py says."
    cfg = settings()
    found = {'': cfg['requirements'].split()}
    found |= {k.removesuffix('_requirements'): cfg[k].split() for k in cfg if k.endswith('_requirements')}
    return {k: v if k!='dev' else sum(found.values(), []) for k, v in found.items()}


def link(path, text='')->str: # Markdown
    "A file of the repository, where it is hosted."
    cfg = settings()
    return f'[{text or path}]({cfg["git_url"]}/blob/{cfg["branch"]}/{path})'


# --- what docs/*.md ask for -----------------------------------------------------------------------------------------------

def extras_table(story)->str:
    "An extra a row: the command, what it is for, what it downloads and adds to the disk."
    rows = json.loads((docs/'extras.json').read_text(encoding='utf-8'))
    if missing := extras().keys()-rows.keys(): raise DocsError(f'docs/extras.json: say what the extra {min(missing)} is for, then run tools/sizes.py')
    def size(mb): return f'{mb/1000:.1f} GB' if mb>=1000 else f'{mb} MB' if mb else 'under 1 MB'
    def command(name): return f'pip install ".[{name}]"' if name else 'pip install .'
    lines = [f'| `{command(name)}` | {rows[name]["what"]} | {size(rows[name]["wheels"])} | {size(rows[name]["mb"])} |' for name in extras()]
    return '| command | what for | wheels | on disk |\n|---|---|---|---|\n' + '\n'.join(lines)


def torch_size(story)->str:
    "How much of the library's disk PyTorch takes."
    row = json.loads((docs/'extras.json').read_text(encoding='utf-8'))['']
    return (f'Of the {row["mb"]/1000:.1f} GB of the first row, {row["torch"]/1000:.1f} GB are PyTorch with its libraries for NVIDIA GPUs '
            f'({row["torch_wheels"]/1000:.1f} of {row["wheels"]/1000:.1f} GB to be downloaded).')


def cpu_wheels(story)->str:
    "How PyTorch is installed without its libraries for GPUs."
    torch = ' '.join(f'"{r}"' for r in extras()[''] if r.startswith('torch'))
    return f'```sh\npip install {torch} --index-url https://download.pytorch.org/whl/cpu\npip install ".[tag]"\n```'


def names_table(story, *names)->str:
    "The public names of some modules, with the first line of their docstrings."
    known = {m.name: m for m in story['modules']}
    if gone := [n for n in names if n not in known]: raise DocsError(f'docs/names.md: {gone[0]} is no module with public names')
    def value(m, o):   # of a constant: its first line, and the comment there
        first, *more = ast.unparse(o.value).split('\n')
        short = first if len(first)<60 and not more else first[:57]+'...'
        return ' '.join([f'`{short}`' if '`' not in short else '', plain(m.comments.get(o.lineno, ''))])
    def what(m, o): return plain((ast.get_docstring(o) or '').split('\n')[0]) if hasattr(o, 'body') else value(m, o)
    def row(m, name, o): return f'| [`{name}`](api/{m.name}.md#{name}) | {what(m, o)} |'
    def table(m):
        notebook, _ = m.cell(len(m.lines))
        head = f'**[fsic_nb.{m.name}](api/{m.name}.md)**, from [{notebook}]({notebook}.md)\n\n| name | what |\n|---|---|\n'
        return head + '\n'.join(row(m, name, o) for name, o in m.entries() if '.' not in name)
    return '\n\n'.join(table(known[n]) for n in names)


def gallery(story)->str:
    "Every figure of every notebook, small, with a link to its place."
    def card(page, title, f):
        return (f'<figure markdown="span">\n[![{f["alt"]}]({f["src"]}){{loading=lazy}}]({page}.md#{f["id"]})\n'
                f'<figcaption markdown="span">**[{title}]({page}.md#{f["id"]})** {f["caption"]}</figcaption>\n</figure>')
    def part(head, stems):
        cards = [card(page, title, f) for page, title, found in story['figures'] if page in stems for f in found]
        return f'## {head}\n\n<div class="gallery" markdown="1">\n' + '\n\n'.join(cards) + '\n</div>' if cards else ''
    return '\n\n'.join(part(head, stems) for head, stems in story['parts'])


def reference(entry, key)->str: # BibTeX
    "One entry of CITATION.cff."
    def person(a): return a.get('name') if 'family-names' not in a else ', '.join(a[k] for k in ('family-names', 'given-names') if k in a)
    people = ['others' if p=='et al.' else f'{{{p}}}' if ' ' in p and ',' not in p else p for p in map(person, entry['authors'])]
    numbers = [i['value'] for i in entry.get('identifiers', []) if i['value'].startswith('arXiv:')]
    year = entry.get('year') or str(entry.get('date-released', ''))[:4]
    fields = dict(title=f'{{{entry["title"]}}}', author=' and '.join(people), year=year, journal=entry.get('journal'),
                  booktitle=entry.get('collection-title'), doi=entry.get('doi'), version=entry.get('version'),
                  note=', '.join(numbers), url=entry.get('url') or entry.get('repository-code'))
    kind = {'article': 'article' if entry.get('journal') else 'misc', 'conference-paper': 'inproceedings', 'software': 'software'}.get(entry['type'], 'misc')
    return f'@{kind}{{{key},\n' + ',\n'.join(f'  {k} = {{{v}}}' for k, v in fields.items() if v) + '\n}'


def sentence(text)->str: return text[:1].upper() + text[1:]


def citation(story, what='software')->str:
    "BibTeX of the software, or of the works that it builds on."
    cff = yaml.safe_load((root/'CITATION.cff').read_text(encoding='utf-8'))
    if what=='software': return f'````bibtex\n{reference(cff, "fsic_nb")}\n````'
    def key(e): return re.sub(r'\W', '', e['authors'][0].get('family-names', 'anon').lower()) + f'{e["year"]}' + re.sub(r'\W.*', '', e['title'].lower())
    return '\n\n'.join(f'{sentence(e.get("scope", e["type"]))}:\n\n````bibtex\n{reference(e, key(e))}\n````' for e in cff.get('references', []))


def sources(story)->str:
    "Where the repository lives, and its version."
    cfg = settings()
    return f'Version {cfg["version"]}. Source: [{cfg["git_url"]}]({cfg["git_url"]}); {link("CHANGELOG.md", "changes")}; [issues]({cfg["git_url"]}/issues).'


made = {f.__name__: f for f in (extras_table, torch_size, cpu_wheels, names_table, gallery, citation, sources)}


def pages(story, relink)->dict: # name of the page -> Markdown
    "docs/*.md with what they ask for in place."
    def fill(m):
        name, *args = m[1].split()
        return made[name](story, *args)
    texts = {p.stem: p.read_text(encoding='utf-8') for p in sorted(docs.glob('*.md'))}
    listed = {n for line in re.findall(r'<!-- site: names_table (.+?) -->', texts['names']) for n in line.split()}
    if left := [m.name for m in story['modules'] if m.name not in listed]: raise DocsError(f'docs/names.md: the module {left[0]} belongs to no task; add it to one')
    return {name: re.sub(r'^<!-- site: (.+?) -->$', fill, relink(text, f'docs/{name}.md', f'{name}.md'), flags=re.M) for name, text in texts.items()}
