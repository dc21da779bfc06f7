"""Where an archive runs: which containers fit it, an image of our own, the twin of a prebuilt container."""
