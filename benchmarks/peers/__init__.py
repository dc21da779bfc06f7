"""The other sides of the comparison: the same weights on the same machine, tuned as their documents advise."""
