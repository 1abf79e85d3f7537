"""The API reference: a Markdown page a module, read from its source. Used by tools/build_docs.py; imports nothing of the library."""
import ast, html, re, tokenize


code = re.compile(r'(^(?P<f>`{3,}).*?^(?P=f)$|`[^`\n]+`)', re.M|re.S)


def outside_code(text, change, name=lambda c: c)->str:
    "`text` with `change` made outside of code and `name` made of code within a line."
    done, end = [], 0
    for m in code.finditer(text):
        done += [change(text[end:m.start()]), m[0] if m['f'] else name(m[0])]
        end = m.end()
    return ''.join(done + [change(text[end:])])


def plain(text)->str: # Markdown
    "Words of a docstring or comment as they stand: what Markdown would read as a sign is escaped, but in code, where a backslash would show."
    return outside_code(text, lambda t: re.sub(r'([\\*_$|])', r'\\\1', html.escape(t, quote=False)))


def fence(text, kind): return f'````{{.{kind}}}\n{text.rstrip()}\n````'


class Module:
    "What the reference says about one module, read from its source."
    def __init__(self, path):
        self.name, self.text = path.stem, path.read_text(encoding='utf-8')
        self.lines, self.tree = self.text.splitlines(), ast.parse(self.text)
        with path.open('rb') as f: self.comments = {t.start[0]: t.string.strip('# ') for t in tokenize.tokenize(f.readline) if t.type==tokenize.COMMENT}
        # the package's own __all__ repeats names that are described where they are born
        born = self.name!='__init__'
        self.public = next((ast.literal_eval(o.value) for o in self.tree.body if born and isinstance(o, ast.Assign) and o.targets[0].id=='__all__'), [])

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
            if isinstance(o, ast.Assign): names = [n.id for t in o.targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            else: names = [] if patched(o) else [getattr(o, 'name', None)]
            for name in names:
                if name in self.public: yield from [(name, o), *methods[name]]


def patched(f)->str: # '' if it is not
    "The class that fastcore's `@patch` or `@patch_to` gives `f` to."
    if not isinstance(f, ast.FunctionDef): return ''
    to = [d.args[0] for d in f.decorator_list if isinstance(d, ast.Call) and ast.unparse(d.func)=='patch_to']
    if to: return ast.unparse(to[0])
    names = [ast.unparse(d).split('(')[0] for d in f.decorator_list]
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
        rows = [(p.lineno, {a.vararg: '*', a.kwarg: '**'}.get(p, '')+p.arg, show(p.annotation), show(d)) for k, (p, d) in enumerate(pairs) if k or p.arg not in ('self', 'cls')]
        if f.returns: rows.append((f.returns.end_lineno, 'returns', show(f.returns), ''))
    last = {line: k for k, (line, *_) in enumerate(rows)}   # a comment belongs to the last parameter of its line
    return [(*row[1:], module.comments.get(row[0], '') if last[row[0]]==k else '') for k, row in enumerate(rows)]


def signature(name, f)->str:
    "The call as one writes it, a line a parameter if it is long."
    args = [p.strip() for k, p in enumerate(re.split(r', (?![^\[(]*[\])])', ast.unparse(f.args))) if k or p.strip().split(':')[0] not in ('self', 'cls')]
    end, one = ')' + (f' -> {ast.unparse(f.returns)}' if f.returns else ''), f'{name}({", ".join(args)}'
    return one+end if len(one+end)<90 else f'{name}(\n    ' + ',\n    '.join(args) + f',\n{end}'


def entry(module, name, o)->str: # Markdown
    "One public name: signature, docstring, docments, where it is born, its source."
    notebook, _ = module.cell(o.lineno)
    def cells(row): return ' | '.join(f'`{c}`' if c and k<3 else plain(c) for k, c in enumerate(row))
    init = next((m for m in getattr(o, 'body', []) if isinstance(o, ast.ClassDef) and getattr(m, 'name', '')=='__init__'), None)
    f = init or o
    anchor = name.replace('_', '\\_')   # or __x__ would be read as bold
    blocks = [f'{"###" if "." in name else "##"} `{name}` {{#{anchor}}}']
    if isinstance(o, ast.Assign): blocks.append(fence('\n'.join(module.lines[o.lineno-1:min(o.end_lineno, o.lineno+11)]) + '\n# ...'*(o.end_lineno>o.lineno+11), 'python'))
    elif isinstance(f, ast.FunctionDef): blocks.append(fence(signature(name, f), 'python'))
    if not isinstance(o, ast.Assign):
        blocks.append(plain(ast.get_docstring(o) or ''))
        rows = parameters(module, f)
        if rows: blocks.append('| parameter | type | default | what |\n|---|---|---|---|\n' + '\n'.join(f'| {cells(r)} |' for r in rows))
    where = f'[{notebook}](../{notebook}.md#def-{name.split(".")[0]})' if '.' not in name else f'[{notebook}](../{notebook}.md)'
    blocks.append(f'born in {where} · source: [fsic_nb/{module.name}.py, line {o.lineno}](../source/{module.name}.md#__codelineno-0-{o.lineno})\n{{.born}}')
    return '\n\n'.join(blocks)


def api_page(module, source)->str:
    "The reference of one module; `source` is a link to it."
    about = f'from [{module.cell(len(module.lines))[0]}](../{module.cell(len(module.lines))[0]}.md) · {source}\n{{.links}}'
    return '\n\n'.join([f'# fsic_nb.{module.name}', f'> {ast.get_docstring(module.tree)}', about] + [entry(module, n, o) for n, o in module.entries()]) + '\n'
