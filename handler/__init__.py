"""marquee's handler: ships inside model.mar and turns request bytes into pictures.

Python 3.9 and newer. The rooms: ``contract`` (no torch), ``model``, ``engine`` and ``doors``; only
``doors.torchserve`` knows TorchServe.
"""

__version__ = "0.1.0"
