"""What every request passes: identity, errors, limits of size, figures."""
