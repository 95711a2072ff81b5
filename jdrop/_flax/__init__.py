"""What the modules of Linen and of NNX share."""
