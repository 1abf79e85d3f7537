"""Learn labels from a handful of images each, and find all labels of a new image.

Run `fsic_demo --quick` in a shell first: it needs no data and shows in a minute what the
library does. The same in Python:

    from fsic_nb.experiment import prepare         # images, split, features and words in one
    from fsic_nb.evaluate import evaluate, table   # scores methods on the same episodes

and everything below, either `fsic_nb.NAME` or `from fsic_nb import NAME`:

- data: `read` a data set from its folder into an `ImageSet`;
  a `LabelSplit` says which labels are unseen;
- inputs: `extract` local features of images,
  `load_words` and `label_vectors` for the names of labels;
- episodes: an `Experiment` draws `Episodes` of labels that no method was trained on;
- methods: each is a function from a `Support` (its images are `Features`) to a scorer of
  new images. `simpleshot` is the simplest one, `fit_named` makes the one for photographs, which
  needs no training, `load_model` opens one that `fsic_train` made;
- your own photos: a `Tagger` learns tags from a few examples each, finds them in other photos and
  says why;
- mistakes that you can correct are a `FsicError`: one sentence with the file, the record and
  the remedy.

`help(fsic_nb.NAME)` describes each of them. A module and the notebook that explains it have
the same name.
"""
__version__ = "0.1.0"

# Each name is loaded when it is first used, so that importing the package costs nothing. A
# module's name cannot stand here (`fsic_nb.evaluate` is the module), since importing the module
# would replace the function.
_module_of = dict(
    ImageSet='data', LabelSplit='data', read='readers', extract='features', load_words='words',
    label_vectors='words', Episodes='episodes', Experiment='experiment', Features='support',
    Support='support', simpleshot='support', fit_named='named', load_model='runs', FsicError='core',
    Tagger='review')                       # the last module that adds a method to it
__all__ = [*_module_of]


def __getattr__(name):
    "Load one of the names in `__all__` from its module, or a module of the package."
    from importlib import import_module
    from importlib.util import find_spec
    if name in _module_of:
        globals()[name] = value = getattr(import_module(f'{__name__}.{_module_of[name]}'), name)
        return value
    if not name.startswith('_') and find_spec(f'{__name__}.{name}'):
        return import_module(f'{__name__}.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__():
    "List what is loaded already and what is waiting."
    return sorted({*globals(), *_module_of})
