"""evbiodist: from images of labelled extracellular vesicles to pharmacokinetic parameters that hold across labels."""

import sys as _sys

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

if "IPython" in _sys.modules:  # objects show themselves in notebooks
    from importlib import import_module as _import_module

    _import_module("evbiodist.report.notebook").register()
