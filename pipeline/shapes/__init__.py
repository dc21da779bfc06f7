"""The embedded model: what it draws, how it is trained, and how its pictures are judged."""
