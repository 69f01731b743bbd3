"""Benchmarks of kernels, layers and chunks: `wamcore bench WHAT`. An installed package has them as `wamcore.bench`."""
