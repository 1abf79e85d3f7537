"""A newcomer's first minutes, measured: data/results/first.json, whose numbers README tells.

    python tools/first_minutes.py EXAMPLES PHOTOS [--work FOLDER] [--goal N]

EXAMPLES has a folder for each tag, PHOTOS what is to be tagged. Every goal begins with a clone of this repository, an empty
FSIC_HOME and no environment, and runs the commands that README names for it, as they stand there; a command that README no
longer names stops the measurement. Seconds of an installation depend on where the packages come from.
"""
import argparse, os, re, shutil, subprocess, sys, tempfile, time
from pathlib import Path

from fsic_nb.core import say
from fsic_nb.files import read_json, write_json

root = Path(__file__).resolve().parents[1]
target = root/'data'/'results'/'first.json'
NEW = 'python3 -m venv .venv'   # not README's: how to make an environment is everyone's own matter

# what someone wants -> the commands
GOALS = {
    'the demo, small': ['make demo DEMO_ARGS="--quick"'],
    'the demo\'s table': ['make demo'],
    'own photos tagged, with a report': [NEW, 'pip install ".[tag]"', 'fsic_tag examples photos --out tags.csv --report tags.html'],
    'the first notebook, run again': ['make lab'],
    'a method of one\'s own, compared': [NEW, 'pip install ".[demo]"', 'fsic_train --quick --out quick_refined', 'python mine.py'],
}
# what stands for a command that waits for someone: JupyterLab is opened and the notebook's cells are run in a browser
STANDS_FOR = {'make lab': 'python3 tools/setup_env.py dev .venv && python tools/lab.py 00_core'}


def comparison(readme):
    "README's program that compares a method of one's own."
    return next(b for b in re.findall(r'```python\n(.*?)```', readme, re.S) if 'a method of one\'s own' in b)


def clone(folder, examples, photos):
    "A clone with what a newcomer brings along."
    subprocess.run(['git', 'clone', '-q', str(root), str(folder)], check=True)
    (folder/'examples').symlink_to(examples)
    (folder/'photos').symlink_to(photos)
    readme = (folder/'README.md').read_text(encoding='utf-8')
    (folder/'mine.py').write_text(comparison(readme), encoding='utf-8')
    return readme


def run(command, folder):
    "Seconds of a command in a clone."
    env = {k: v for k, v in os.environ.items() if not k.startswith(('FSIC_', 'PYTHON', 'OMP_', 'MAKE', 'VIRTUAL_ENV'))}
    env.update(FSIC_HOME=str(folder/'home'), PATH=f'{folder}/.venv/bin:{os.environ["PATH"]}')
    start = time.perf_counter()
    p = subprocess.run(['sh', '-c', STANDS_FOR.get(command, command)], cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if p.returncode: sys.exit(f'{command}\n{p.stdout[-3000:]}')
    return round(time.perf_counter()-start, 1)


def measure(commands, work, examples, photos):
    "Seconds of each command of a goal, in a clone of its own."
    folder = Path(tempfile.mkdtemp(dir=work))/'fsic_nb'
    readme = clone(folder, examples, photos)
    for c in commands:
        if c not in (NEW, 'python mine.py') and c not in readme: sys.exit(f'README does not name {c!r}; change tools/first_minutes.py')
    try: return {c: run(c, folder) for c in commands}
    finally: shutil.rmtree(folder.parent)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('examples', type=Path)
    p.add_argument('photos', type=Path)
    p.add_argument('--work', type=Path, default=None, help='where the clones are made, 10 GB; default: the temporary folder')
    p.add_argument('--goal', type=int, action='append', help=f'1 to {len(GOALS)}; default: all')
    a = p.parse_args()
    done = read_json(target, dict) if target.exists() else {}
    for n, (goal, commands) in enumerate(GOALS.items(), 1):
        if a.goal and n not in a.goal: continue
        done[goal] = measure(commands, a.work, a.examples.resolve(), a.photos.resolve())
        write_json(target, {g: done[g] for g in GOALS if g in done})
        say(f'{sum(done[goal].values())/60:5.1f} min  {goal}: ' + ', '.join(f'{c} {s:.0f} s' for c, s in done[goal].items()))


if __name__=='__main__': main()
