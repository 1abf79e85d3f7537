"Packaging for `fsic_nb`: every fact comes from settings.ini, which nbdev reads as well."
import re
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).parent
parser = ConfigParser(delimiters=['='])
parser.read(here/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']
extras = {k.removesuffix('_requirements'): cfg[k].split() for k in cfg if k.endswith('_requirements')}
# Developers also run the tests, the audit, the demo, the tagger, the notebooks of several devices and computers, and the rivals of the bench.
extras['dev'] += [r for name in ('test', 'audit', 'demo', 'tag', 'train', 'bench', 'dask', 'submitit', 'webdataset') for r in extras[name]]

urls = {'Documentation': cfg['doc_host'] + cfg['doc_baseurl'], 'Source': cfg['git_url'],
        'Changelog': f"{cfg['git_url']}/blob/{cfg['branch']}/CHANGELOG.md", 'Issues': f"{cfg['git_url']}/issues"}
status = {'1': '1 - Planning', '2': '2 - Pre-Alpha', '3': '3 - Alpha', '4': '4 - Beta', '5': '5 - Production/Stable'}
classifiers = [f"Development Status :: {status[cfg['status']]}", *cfg['classifiers'].strip().splitlines(),
               *(f'Programming Language :: Python :: {v}' for v in cfg['python_versions'].split())]

# What README shows and links to lies beside it in the repository, but not on a package index. Its code stays as it is.
beside = re.compile(r'(?P<picture>!\[[^]]*\]\(|\bsrc(?:set)?=")(?!\w+:|#)|(\]\(|\bhref=")(?!\w+:|#)')
def in_full(text): return beside.sub(lambda m: f"{m[0]}{cfg['git_url']}/{'raw' if m['picture'] else 'blob'}/{cfg['branch']}/", text)
readme = re.split(r'(^```.*?^```$)', (here/'README.md').read_text(encoding='utf-8'), flags=re.M|re.S)
readme[::2] = map(in_full, readme[::2])


class BuildWithData(build_py):
    "Put the configs, splits and page of `data/` into the wheel; a clone and an editable install have them where they are."
    def run(self):
        super().run()
        if self.editable_mode: return
        kinds = 'configs/*.toml', 'splits/*.json', 'page/page.*', 'models/*.safetensors'
        for source in [p for kind in kinds for p in here.glob(f'data/{kind}')]:
            target = Path(self.build_lib, cfg['lib_path'], source.relative_to(here))
            self.mkpath(str(target.parent))
            self.copy_file(str(source), str(target))


setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'],
    author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'], project_urls=urls,
    license_expression='Apache-2.0', keywords=cfg['keywords'], classifiers=classifiers,
    long_description=''.join(readme), long_description_content_type='text/markdown',
    python_requires=f">={cfg['min_python']}",
    packages=find_packages(include=[f"{cfg['lib_path']}*"]), include_package_data=True,
    install_requires=cfg['requirements'].split(), extras_require=extras,
    entry_points={'console_scripts': cfg['console_scripts'].split()},
    cmdclass={'build_py': BuildWithData}, zip_safe=False)
