"""From likelihoods of images to the shares of structures among them."""
