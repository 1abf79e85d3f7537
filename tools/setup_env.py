"""Make .venv and install this repository into it, once.

    python tools/setup_env.py demo|dev

Called by the Makefile. Standard library only, and old enough in style that an old Python gets as far as being told
that it is too old. Whatever goes wrong ends in one sentence; pip's own words are kept in .venv/install.log.
"""
import hashlib, os, re, shutil, subprocess, sys

root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
venv = os.path.join(root, '.venv')
log = os.path.join(venv, 'install.log')
needs_gb = 8   # torch with its libraries is most of it
made = 'a .venv made for ' + root   # scripts in a .venv name its folder: after a move it has to be made again

class Trouble(Exception):
    "One sentence for the user."


def setting(name):
    "The value of `name` in settings.ini."
    with open(os.path.join(root, 'settings.ini')) as f: found = re.search(r'^%s *= *(.*)$' % name, f.read(), re.M)
    return found.group(1).strip()


def check_python(version=sys.version_info):
    "Is this Python new enough?"
    least = setting('min_python')
    if tuple(version[:2]) < tuple(int(o) for o in least.split('.')):
        raise Trouble('fsic_nb needs Python %s or newer and this is %s (%s); name another one: make demo PYTHON=/path/to/python%s'
                      % (least, '.'.join(str(o) for o in version[:3]), sys.executable, least))


def check_space(folder, gb):
    "Does the disk of `folder` have `gb` gigabytes left?"
    free = shutil.disk_usage(folder).free / 1e9
    if free < gb: raise Trouble('The disk is too full: %s has %.1f GB free and the installation needs about %d GB.' % (folder, free, gb))


def python(): return os.path.join(venv, 'Scripts' if os.name == 'nt' else 'bin', 'python')


def read(path):
    "The text of a file, '' if there is none."
    if not os.path.exists(path): return ''
    with open(path, errors='replace') as f: return f.read()


def stamp(extra): return os.path.join(venv, '.installed-' + extra)


def key(extra):
    "What an installation depends on; it changes when settings.ini or setup.py do."
    return hashlib.sha256('\n'.join([made, extra, read(os.path.join(root, 'settings.ini')), read(os.path.join(root, 'setup.py'))]).encode()).hexdigest()


def installed(extra):
    "Is `extra` installed as settings.ini and setup.py ask today? dev contains demo."
    return os.path.exists(python()) and any(read(stamp(e)) == key(e) for e in (extra, 'dev'))


def make_venv():
    "An empty .venv, unless there is one that was made here."
    if os.path.exists(python()) and read(os.path.join(venv, '.made')) == made: return
    if os.path.exists(venv) and not os.path.exists(os.path.join(venv, 'pyvenv.cfg')):
        raise Trouble('%s is no virtual environment; move it away.' % venv)
    p = subprocess.run([sys.executable, '-m', 'venv', '--clear', venv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       universal_newlines=True)
    if p.returncode and 'ensurepip' in p.stdout:
        raise Trouble('%s cannot make virtual environments; install its venv package (Debian, Ubuntu: python3-venv).' % sys.executable)
    if p.returncode: raise Trouble(reason(p.stdout))
    with open(os.path.join(venv, '.made'), 'w') as f: f.write(made)


def reason(text):
    "The one sentence behind pip's many, from its output."
    def said(*patterns): return re.search('|'.join(patterns), text)
    errors = re.findall(r'^ *ERROR: (.*)$', text, re.M)
    if said(r'Errno 28\b', 'No space left', r'Errno 122\b', 'Disk quota exceeded'):
        return 'The disk is full: free some space for %s, or point TMPDIR at a larger disk if it is the temporary folder.' % venv
    if said('ResolutionImpossible', 'conflicting dependencies'): return 'The requirements in settings.ini contradict each other; pip says why in %s' % log
    lacking = re.search(r'satisfies the requirement (\S+) \(from versions: none\)', text)
    if lacking or said('NewConnectionError', 'ConnectTimeout', 'Max retries exceeded', 'name resolution', 'Name or service not known', 'ProxyError',
            'Connection refused', 'Network is unreachable', 'Read timed out', 'ReadTimeout', 'CERTIFICATE_VERIFY_FAILED', 'SSLError',
            'Connection broken', 'Could not fetch URL'):
        return ('The package index cannot be reached%s: check the network, the proxy or PIP_INDEX_URL, then run the same command again (details: %s)'
                % (' or does not have ' + lacking.group(1) if lacking else '', log))
    return 'pip failed: %s (details: %s)' % (errors[-1] if errors else 'no reason given', log)


def pip_install(extra):
    "pip install -e .[extra], its output in the log and its progress on a terminal's last line."
    command = [python(), '-m', 'pip', 'install', '--disable-pip-version-check', '--no-input', '--retries', '3', '--progress-bar', 'off', '-e', '.[%s]' % extra]
    lines = []
    with open(log, 'w') as out:
        p = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, errors='replace')
        for line in p.stdout:
            out.write(line)
            lines.append(line)
            if sys.stdout.isatty(): sys.stdout.write('\r\033[K%s' % line.strip()[:78]); sys.stdout.flush()
        if sys.stdout.isatty(): sys.stdout.write('\r\033[K')
        if p.wait(): raise Trouble(reason(''.join(lines)))


def main(extra):
    "Install what is missing and say what was done."
    check_python()
    if installed(extra): return
    started = any(os.path.exists(stamp(e)) for e in ('demo', 'dev'))   # then torch is there
    check_space(root, 1 if started else needs_gb)
    make_venv()
    print('Installing fsic_nb[%s] into .venv%s ...' % (extra, '' if started else ': about %d GB and some minutes' % needs_gb))
    sys.stdout.flush()
    pip_install(extra)
    with open(stamp(extra), 'w') as f: f.write(key(extra))
    print('Installed.')


if __name__ == '__main__':
    try: main(sys.argv[1])
    except Trouble as e: sys.exit(str(e))
    except KeyboardInterrupt: sys.exit('Stopped; the same command starts again where it is needed.')
    except EnvironmentError as e:
        if e.errno not in (28, 122): raise
        sys.exit('The disk is full: free some space for %s.' % venv)
