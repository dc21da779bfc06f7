"""marquee on the user's machine: config -> build -> upload -> register -> deploy -> predict."""

__version__ = "0.1.0"
