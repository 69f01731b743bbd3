"""Trains the bundled tabletop model: data, codec, joint video-action flow, evaluation, export."""
