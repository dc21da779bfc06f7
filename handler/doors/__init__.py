"""The servers that can stand before the engine, one folder each."""
