"""The residual network of §4.4.3."""
