"""Ask an advisory service about the installed packages, with pip-audit.

    python tools/audit.py        # or: make audit

Ends with 0: no vulnerability is known; 1: some are, and are listed; 3: it is not known, since the service could not be
asked (no network, say). Packages that the service does not know, such as this one, are named.
"""
import json, re, subprocess, sys

UNKNOWN = 3   # the exit code if nobody could be asked
unreachable = re.compile('ConnectionError|NewConnectionError|ConnectTimeout|ReadTimeout|Max retries exceeded|SSLError|ProxyError|name resolution|'
                         'Name or service not known|Network is unreachable|Connection refused|ServiceError|HTTPError')


def ask()->tuple: # what pip-audit found, or None; what it said
    "Run pip-audit on the environment of this Python."
    p = subprocess.run([sys.executable, '-m', 'pip_audit', '--format', 'json', '--progress-spinner', 'off'], capture_output=True, text=True)
    try: return json.loads(p.stdout)['dependencies'], p.stderr
    except (ValueError, TypeError, KeyError): return None, p.stderr


def main()->int: # the exit code
    "Print what is known."
    found, said = ask()
    if found is None:
        last = (said.strip() or 'no reason given').splitlines()[-1][:200]
        if unreachable.search(said): print('Not audited: no advisory service can be reached; check the network or the proxy, then run the same command again.', file=sys.stderr)
        elif 'No module named pip_audit' in said: print('Not audited: pip-audit is not installed; run make audit, or pip install ".[audit]".', file=sys.stderr)
        else: print(f'Not audited: pip-audit failed ({last}).', file=sys.stderr)
        return UNKNOWN
    bad = [(d, v) for d in found for v in d.get('vulns', ())]
    for d, v in bad: print(f'{d["name"]} {d["version"]}: {v["id"]}; ' + (f'mended in {", ".join(v["fix_versions"])}' if v.get('fix_versions') else 'no version mends it yet'))
    left_out = [d['name'] for d in found if 'skip_reason' in d]
    asked = len(found)-len(left_out)
    print(f'{asked} packages: ' + (f'{len(bad)} known vulnerabilities.' if bad else 'no vulnerability is known.')
          + (f' Not known to the service: {", ".join(left_out)}.' if left_out else ''))
    return int(bool(bad))


if __name__=='__main__': sys.exit(main())
