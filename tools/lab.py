"""Run notebooks as a reader does: *Restart Kernel and Run All Cells* in JupyterLab, in a headless browser.

    python tools/lab.py                          every notebook, in order
    python tools/lab.py --parts 0,1,2,3          those of some parts (the table in nbs/index.ipynb)
    python tools/lab.py nbs/10_embed.ipynb ...   these
    python tools/lab.py index --shots FOLDER     with a picture of every screenful

It prints seconds, cells run and the first error of each notebook, and fails if there is one. What a cell writes in red (a
warning, stderr) is an error, too, but the cells after it are run. JupyterLab opens a copy of
nbs/, data/ and figures/ in a temporary folder, with settings and a workspace of its own: nothing here is changed.
Needs a chromium, which `make` does not install (Debian: `apt install chromium`).

`nbdev_test` and tools/notebooks.py run cells without a kernel and heed `#| eval: false`; JupyterLab runs every cell.
"""
import argparse, json, os, re, secrets, shutil, socket, subprocess, sys, tempfile, time, urllib.request
from contextlib import contextmanager
from pathlib import Path

reader = {k:v for k,v in os.environ.items() if k not in ('FSIC_PROGRESS', 'MPLBACKEND', 'IN_TEST')}   # what tests set, a reader does not

from build_docs import parts   # after `reader`: these set variables for their own purposes
from notebooks import notebooks, root

# Runs in the page: the state of the open notebook, from JupyterLab's own model. `ran` counts cells that have a number.
state = """() => {
  const panel = window.jupyterapp?.shell?.currentWidget, kernel = panel?.sessionContext?.session?.kernel
  if (!panel?.content?.model?.toJSON || !kernel) return {status: 'none', cells: 0, ran: 0, error: null, red: null}
  const cells = panel.content.model.toJSON().cells.map((c, i) => ({...c, i})).filter(c => c.cell_type == 'code' && String(c.source).trim())
  const bad = cells.flatMap(c => c.outputs.filter(o => o.output_type == 'error').map(o => `cell ${c.i}: ${o.ename}: ${o.evalue}`))
  const red = cells.flatMap(c => c.outputs.filter(o => o.name == 'stderr').map(o => `cell ${c.i}, in red: ${[o.text].flat().join('').replace(/\\s+/g, ' ').trim().slice(0, 200)}`))
  return {status: kernel.status, cells: cells.length, ran: cells.filter(c => c.execution_count).length, error: bad[0] ?? null, red: red[0] ?? null}
}"""
done = f"""() => {{
  const s = ({state})()
  return ['dead', 'autorestarting'].includes(s.status) || s.status == 'idle' && (s.error || s.ran == s.cells) ? s : null
}}"""


def chromium(): # None if there is none
    "Debian's chromium, or what goes by a similar name."
    return shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')


def copied(paths:list, to:Path):
    "What notebooks read, copied to the folder `to`, and `paths` into its nbs/, without outputs: what one finds there is of this run."
    for name in ('data/splits', 'data/results', 'data/configs', 'figures'): shutil.copytree(root/name, to/name)
    shutil.copy(root/'README.md', to)
    (to/'nbs').mkdir()
    for p in paths:
        nb = json.loads(p.read_text(encoding='utf-8'))
        for c in nb['cells']: c.update(dict(outputs=[], execution_count=None) if c['cell_type']=='code' else {})
        (to/'nbs'/p.name).write_text(json.dumps(nb), encoding='utf-8')


@contextmanager
def lab(folder:Path): # gives the address of a notebook, by its name
    "JupyterLab on `folder`, away from the settings of whoever runs this."
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    token, own = secrets.token_hex(16), folder/'.jupyter'
    dirs = dict(JUPYTER_CONFIG_DIR='config', JUPYTER_DATA_DIR='data', JUPYTER_RUNTIME_DIR='runtime', JUPYTERLAB_SETTINGS_DIR='settings',
                JUPYTERLAB_WORKSPACES_DIR='workspaces', IPYTHONDIR='ipython')
    env = reader | {k: str(own/v) for k,v in dirs.items()} | dict(JUPYTER_TOKEN=token, PYTHONPATH=os.pathsep.join([str(root), *filter(None, [reader.get('PYTHONPATH')])]))
    quiet = own/'settings'/'@jupyterlab'/'apputils-extension'/'notification.jupyterlab-settings'   # no question about news over the notebook
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    with (own/'log').open('w') as log:
        server = subprocess.Popen([sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', '--ip=127.0.0.1', f'--port={port}', '--ServerApp.port_retries=0',
                                   f'--ServerApp.root_dir={folder}', '--LabApp.expose_app_in_browser=True', '--LabApp.news_url='], env=env, stdout=log, stderr=log)
        try:
            for _ in range(240):
                try: urllib.request.urlopen(f'http://127.0.0.1:{port}/api', timeout=5).close(); break
                except OSError: time.sleep(.5)
                if server.poll() is not None: sys.exit(f'JupyterLab did not start:\n{(own/"log").read_text()[-2000:]}')
            yield lambda name: f'http://127.0.0.1:{port}/lab/workspaces/{name}/tree/nbs/{name}.ipynb?token={token}'
        finally:
            server.terminate()   # it ends its kernels
            server.wait(60)


def restart_and_run_all(page, timeout:int)->dict: # `state` afterwards
    "Choose the menu entry, confirm, and wait for the last cell or the first error."
    page.wait_for_function(f"() => ({state})().status == 'idle'", timeout=120_000)
    page.get_by_role('menuitem', name='Kernel', exact=True).click()
    page.get_by_role('menuitem', name=re.compile('^Restart Kernel and Run All Cells')).click()
    page.locator('.jp-Dialog button.jp-mod-accept').click()
    page.locator('.jp-Dialog').wait_for(state='detached')
    return page.wait_for_function(done, timeout=timeout*1000, polling=200).json_value()


def shots(folder:Path): # for `run`
    "A `look` that takes pictures of a notebook, a screenful each, from its top to its end."
    def look(page, stem):
        folder.mkdir(parents=True, exist_ok=True)
        scroller = page.locator('.jp-WindowedPanel-outer:visible').first
        scroller.evaluate('e => e.scrollTo(0, 0)')
        for i in range(60):
            page.wait_for_timeout(700)   # formulas are set when they come into view
            page.screenshot(path=folder/f'{stem}-{i:02}.png')
            if scroller.evaluate('e => { const y = e.scrollTop; e.scrollBy(0, e.clientHeight*.9); return e.scrollTop <= y+1 }'): break
    return look


def run(
    browser, # from playwright
    paths:list, # notebooks
    timeout:int=900, # seconds for each of them
    look=lambda page, stem: None, # called with the open page of a notebook that has been run, and its name
)->bool: # True if all is well
    "Run notebooks one after the other and print a line for each."
    from playwright.sync_api import TimeoutError
    well, total = True, 0.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as d:
        copied(paths, folder := Path(d).resolve())
        with lab(folder) as address:
            for p in paths:
                page = browser.new_page(viewport=dict(width=1400, height=1000))
                page.goto(address(p.stem))
                start = time.perf_counter()
                try: s = restart_and_run_all(page, timeout)
                except TimeoutError as e: s = page.evaluate(state) | dict(error=f'not done in time: {str(e).splitlines()[0]}')
                seconds = time.perf_counter()-start
                if s['status'] in ('dead', 'autorestarting'): s['error'] = 'the kernel died'
                s['error'] = s['error'] or s['red']   # a warning, or a bar on stderr
                print(f"{p.stem:15} {seconds:6.1f} s  {s['ran']:3} of {s['cells']:3} cells  {s['error'] or 'ok'}", flush=True)
                well, total = well and not s['error'], total+seconds
                look(page, p.stem)
                page.evaluate('() => window.jupyterapp.serviceManager.sessions.shutdownAll()')   # no kernel beside the next one
                page.close()
    print(f'{len(paths)} notebooks, {total:.0f} s, ' + ('no errors.' if well else 'with errors.'))
    return well


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('notebook', nargs='*', help='a path or a name; default: all')
    parser.add_argument('--parts', help='numbers of parts, such as 0,1,2,3')
    parser.add_argument('--timeout', type=int, default=900, help='seconds a notebook may take')
    parser.add_argument('--shots', type=Path, help='folder for pictures')
    a = parser.parse_args()
    if not chromium(): sys.exit('No chromium here; install one (Debian: apt install chromium).')
    from playwright.sync_api import sync_playwright
    wanted = [s for n, _, stems in parts() if a.parts and n in a.parts.split(',') for s in stems] + a.notebook
    if a.parts and not wanted: sys.exit(f'No such part: {a.parts}')
    paths = [p if (p := Path(w)).suffix else root/'nbs'/f'{w}.ipynb' for w in wanted] or notebooks()
    if missing := [str(p) for p in paths if not p.exists()]: sys.exit(f'No such notebook: {", ".join(missing)}')
    with sync_playwright() as pw, pw.chromium.launch(executable_path=chromium(), args=['--no-sandbox']) as browser:
        sys.exit(not run(browser, paths, a.timeout, *([shots(a.shots)] if a.shots else [])))


if __name__=='__main__': main()
