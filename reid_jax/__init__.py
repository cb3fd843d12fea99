"""Person re-identification in JAX: PMM and HBFP-Net, their baselines and ablations."""
