"""What makes the UNet faster on some devices. The engine draws without any of it."""
