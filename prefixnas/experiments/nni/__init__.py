"""NNI as an engine of experiments: guarded, with our study under it; trials never import nni."""
