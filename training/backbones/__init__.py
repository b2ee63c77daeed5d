"""The mini backbones of the embedded world: VAE, CLIP, latent diffusion, and the readers that check them."""
