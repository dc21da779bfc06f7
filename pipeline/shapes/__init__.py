"""The embedded model: its pictures, its training, and the judge of its pictures."""
