"""evbiodist: from images of labelled vesicles to pharmacokinetic parameters that hold across labels."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
