"""Where an archive runs: container targets as data, the packages they lack, an image of our own."""
