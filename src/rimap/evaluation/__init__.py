"""The paper's experiments: metrics, and one file for each."""
