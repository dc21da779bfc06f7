"""model.mar: choose and check a model's files, write them with the handler into one archive, read it back.

source folder or hub id -> Selection -> Members -> write_archive -> model.mar -> Inspection
"""
