"""What the scripts share: configuration, data, losses, the training loop, measures."""
