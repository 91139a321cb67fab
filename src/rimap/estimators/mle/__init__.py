"""Regularised maximum likelihood (Eq. 2): `profile` is a voxel, `field` the smooth field, `rician` the other noise."""
