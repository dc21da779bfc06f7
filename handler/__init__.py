"""marquee's handler: ships inside model.mar and turns request bytes into pictures.

Python 3.9 and newer. Only ``torchserve``, ``torchserve_metrics`` and ``envelope`` know TorchServe; only the
modules that say so import torch.
"""

__version__ = "0.1.0"
