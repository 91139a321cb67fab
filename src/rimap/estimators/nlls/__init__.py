"""Voxelwise nonlinear least squares: `estimator` has the method, `conic` the search for models linear in the field."""
