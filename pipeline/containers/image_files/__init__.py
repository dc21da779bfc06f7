"""The files of `marquee image`'s build context; start.py and health.py run inside the image, not here."""
