"""How each of diffusers' pipelines begins a picture. The denoising steps are the same for all of them."""
