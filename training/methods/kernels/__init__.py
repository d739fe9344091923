"""Makes training steps faster on a CPU, with the same values and gradients."""
