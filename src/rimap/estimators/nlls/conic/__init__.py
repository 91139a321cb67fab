"""The search for models that are linear in A and A·B: for each T they span a cone in the space of images."""
