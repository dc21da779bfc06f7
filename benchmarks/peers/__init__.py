"""The other sides: the same weights on the same machine, tuned as their documents advise."""
