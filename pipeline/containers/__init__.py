"""Containers for an archive: which ones can run it, marquee's own image, a copy of the prebuilt one."""
