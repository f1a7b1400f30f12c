"""Anticipates braking and coasting in the car, from a bundle: needs numpy, onnxruntime and Pillow only."""
