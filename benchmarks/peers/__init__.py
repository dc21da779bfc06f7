"""The systems that marquee is compared with; each is set up as its documents advise."""
