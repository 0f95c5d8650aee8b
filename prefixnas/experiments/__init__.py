"""Experiments: many searches with different hyper-parameters, and the engines that run them."""
