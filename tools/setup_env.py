"""Make .venv and install this repository into it, once.

    python tools/setup_env.py demo|dev|clean [FOLDER]

FOLDER instead of .venv; the Makefile, which calls this, has it as VENV=FOLDER. An environment that
was not made here is not emptied, installed into or removed; those made here have a file .made.
Standard library only, and old enough in style that an old Python gets as far as being told that it
is too old. Whatever goes wrong ends in one sentence; the words of venv and pip are kept in
.venv/install.log.
"""
import errno, hashlib, os, re, shutil, subprocess, sys

root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
venv = os.path.join(root, '.venv')
needs_gb = 8   # torch with its libraries is most of it
mark = 'a .venv made for '
made = mark + root   # an environment names its clone: after a move it has to be made again
elsewhere = 'choose a new folder (the same command with VENV=/a/new/folder)'

class Trouble(Exception):
    "One sentence for the user."


def setting(name):
    "The value of `name` in settings.ini."
    with open(os.path.join(root, 'settings.ini')) as f: text = f.read()
    found = re.search(r'^%s *= *(.*)$' % name, text, re.M)
    return found.group(1).strip()


def check_python(version=sys.version_info):
    "Is this Python new enough?"
    least = setting('min_python')
    if tuple(version[:2]) < tuple(int(o) for o in least.split('.')):
        raise Trouble('fsic_nb needs Python %s or newer and this is %s (%s); name another one: '
                      'make demo PYTHON=/path/to/python%s' % (
                          least, '.'.join(str(o) for o in version[:3]), sys.executable, least))


def check_space(folder, gb):
    "Does the disk of `folder` have `gb` gigabytes left?"
    free = shutil.disk_usage(folder).free / 1e9
    if free < gb:
        raise Trouble('The disk is too full: %s has %.1f GB free and the installation needs about '
                      '%d GB.' % (folder, free, gb))


def python(): return os.path.join(venv, 'Scripts' if os.name == 'nt' else 'bin', 'python')


def read(path):
    "The text of a file, '' if there is none."
    if not os.path.exists(path): return ''
    with open(path, errors='replace') as f: return f.read()


def log(): return os.path.join(venv, 'install.log')


def stamp(extra): return os.path.join(venv, '.installed-' + extra)


def key(extra):
    "What an installation depends on; it changes when settings.ini or setup.py do."
    sources = [read(os.path.join(root, name)) for name in ('settings.ini', 'setup.py')]
    return hashlib.sha256('\n'.join([made, extra] + sources).encode()).hexdigest()


def installed(extra):
    "Is `extra` installed as settings.ini and setup.py ask today? dev contains demo."
    return os.path.exists(python()) and any(read(stamp(e)) == key(e) for e in (extra, 'dev'))


def marked():
    "What the mark in the environment says, '' if there is none."
    return read(os.path.join(venv, '.made'))


def write_mark(text):
    "Mark the environment as made here."
    with open(os.path.join(venv, '.made'), 'w') as f: f.write(text)


def why_not_ours():
    "Why the environment must not be emptied or removed, '' if it may be."
    if os.path.islink(venv): return 'is a symbolic link to ' + os.readlink(venv)
    if not os.path.lexists(venv) or os.path.isdir(venv) and not os.listdir(venv): return ''
    if not marked().startswith(mark):
        if os.path.exists(os.path.join(venv, 'pyvenv.cfg')):
            return 'is a virtual environment that was not made by this repository'
        return 'is no virtual environment'
    owner = marked().splitlines()[0][len(mark):]
    inside = os.path.realpath(venv).startswith(os.path.join(os.path.realpath(root), ''))
    # inside the clone it was moved or copied with it; outside, others may need it
    if owner != root and os.path.isdir(owner) and not inside:
        return 'belongs to the clone in ' + owner
    return ''


def make_venv():
    "Make an empty environment, unless there is one that was made here; empty no other."
    if os.path.exists(python()) and marked() == made: return   # behind a link as well: all stays
    why = why_not_ours()
    if why:
        raise Trouble('%s %s, so it is left as it is: %s, or remove it yourself if nobody needs it.'
                      % (venv, why, elsewhere))
    if os.path.realpath(sys.prefix) == os.path.realpath(venv):
        raise Trouble('%s has to be made again, which its own Python cannot do: name another one '
                      'with PYTHON=/path/to/python%s' % (venv, setting('min_python')))
    if marked():
        owner = marked().splitlines()[0][len(mark):]
        print('%s is made again: it %s.' % (
            venv, 'was made for ' + owner if owner != root else 'is not complete'))
    if not os.path.isdir(venv): os.makedirs(venv)
    # marked before it is emptied and filled: whatever stops us, what is left is still known as ours
    write_mark(made + '\nunfinished')
    empty()
    p = subprocess.run([sys.executable, '-m', 'venv', venv], stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, universal_newlines=True, errors='replace')
    if p.returncode:
        with open(log(), 'w') as f: f.write(p.stdout)
        raise Trouble(no_venv(p.stdout))
    write_mark(made)


def empty():
    "Remove all but the mark from the environment; of a link in it the link, not what it points to."
    for name in os.listdir(venv):
        path = os.path.join(venv, name)
        if os.path.isdir(path) and not os.path.islink(path): shutil.rmtree(path)
        elif name != '.made': os.remove(path)


def no_venv(text):
    "The one sentence behind a failed `python -m venv`, from its output."
    if disk_full(text): return disk_full(text)
    other = 'PYTHON=/path/to/python%s' % setting('min_python')
    if re.search(r"ensurepip is not available|No module named '?(venv|ensurepip)", text):
        return ('%s cannot make virtual environments: install its venv package (Debian, Ubuntu: '
                'python3-venv), or name another Python with %s' % (sys.executable, other))
    said = (text.strip() or 'no reason given').splitlines()[-1]
    return ('%s made no virtual environment in %s: %s (details: %s); name another Python with %s '
            'or %s.' % (sys.executable, venv, said, log(), other, elsewhere))


def disk_full(text):
    "One sentence if the output says that the disk is full, '' otherwise."
    if not re.search(r'Errno 28\b|No space left|Errno 122\b|Disk quota exceeded', text): return ''
    return ('The disk is full: free some space for %s, or point TMPDIR at a larger disk if it is '
            'the temporary folder.' % venv)


def reason(text):
    "The one sentence behind pip's many, from its output."
    def said(*patterns): return re.search('|'.join(patterns), text)
    errors = re.findall(r'^ *ERROR: (.*)$', text, re.M)
    if disk_full(text): return disk_full(text)
    if said('ResolutionImpossible', 'conflicting dependencies'):
        return 'The requirements in settings.ini contradict each other; pip says why in %s' % log()
    lacking = re.search(r'satisfies the requirement (\S+) \(from versions: none\)', text)
    if lacking or said(
            'NewConnectionError', 'ConnectTimeout', 'Max retries exceeded', 'name resolution',
            'Name or service not known', 'ProxyError', 'Connection refused',
            'Network is unreachable', 'Read timed out', 'ReadTimeout', 'CERTIFICATE_VERIFY_FAILED',
            'SSLError', 'Connection broken', 'Could not fetch URL'):
        return ('The package index cannot be reached%s: check the network, the proxy or '
                'PIP_INDEX_URL, then run the same command again (details: %s)' % (
                    ' or does not have ' + lacking.group(1) if lacking else '', log()))
    return 'pip failed: %s (details: %s)' % (errors[-1] if errors else 'no reason given', log())


def pip_install(extra):
    "pip install -e .[extra], its output in the log and its progress on a terminal's last line."
    command = [python(), '-m', 'pip', 'install', '--disable-pip-version-check', '--no-input',
               '--retries', '3', '--progress-bar', 'off', '-e', '.[%s]' % extra]
    lines = []
    with open(log(), 'w') as out:
        p = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             universal_newlines=True, errors='replace')
        for line in p.stdout:
            out.write(line)
            lines.append(line)
            if not sys.stdout.isatty(): continue
            sys.stdout.write('\r\033[K%s' % line.strip()[:78])
            sys.stdout.flush()
        if sys.stdout.isatty(): sys.stdout.write('\r\033[K')
        if p.wait(): raise Trouble(reason(''.join(lines)))


def install(extra):
    "Install what is missing and say what was done."
    check_python()
    if installed(extra): return
    make_venv()
    started = any(os.path.exists(stamp(e)) for e in ('demo', 'dev'))   # then torch is there
    check_space(venv, 1 if started else needs_gb)
    print('Installing fsic_nb[%s] into %s%s ...' % (
        extra, venv, '' if started else ': about %d GB and some minutes' % needs_gb))
    sys.stdout.flush()
    pip_install(extra)
    with open(stamp(extra), 'w') as f: f.write(key(extra))
    print('Installed.')


def clean():
    "Remove the environment if it was made here; keep any other and say so."
    why = why_not_ours()
    if why: print('Kept: %s, because it %s.' % (venv, why))
    elif marked():   # not so if there is nothing, or a folder that is only empty
        empty()      # the mark goes last
        shutil.rmtree(venv)


def main(what, folder=''):
    "Do what the command line asks for, in .venv or in another folder (relative to the clone)."
    global venv
    # without a slash at its end, which would hide that it is a link
    venv = os.path.abspath(os.path.join(root, folder or '.venv'))
    if what == 'clean': clean()
    else: install(what)


if __name__ == '__main__':
    try: main(*sys.argv[1:])
    except Trouble as e: sys.exit(str(e))
    except KeyboardInterrupt: sys.exit('Stopped; the same command starts again where it is needed.')
    except EnvironmentError as e:
        if e.errno in (28, 122): sys.exit('The disk is full: free some space for %s.' % venv)
        if e.errno not in (errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOTDIR): raise
        sys.exit('%s cannot be written (%s): %s.' % (venv, e, elsewhere))
