"""The mini backbones of the embedded world: reader, VAE, CLIP and a latent diffusion model, trained on rendered images."""
