"""How many images fit, and calls that survive a shortage."""
