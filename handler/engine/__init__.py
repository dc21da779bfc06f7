"""The step-level engine: requests join and leave a running batch at every denoising step."""
