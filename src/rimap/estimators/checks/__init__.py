"""What is checked after an estimate: does the model fit, does the noise bias it, was the network trained for it."""
