"""The compiled twin of the policies: the same numbers as their definitions up to rounding, several times faster.

    products.py     matrix products in one fixed order
    kernels.py      one timestep of each part of a policy, and its gradient
    operations.py   what happens once per rollout, update or mission: tensors in, tensors out, with gradients
    buffers.py      how tensors and the kernels' arrays lie in memory
    recurrence.py, normalisation.py, reading.py, due.py, words.py, mixing.py
                    the parts: GRUs side by side, layer normalisation, the input, the action that is due, missions read
                    word by word, routers and mixtures
    policies.py     `accelerate`, the one door: a whole policy out of these parts

Every sum here has one order, and nothing depends on the processor's vectors or on threads: the same seed gives the same
weights, bit for bit, on every processor. tests/test_model.py ties each policy to its definition,
tests/test_same_numbers.py holds the promise.
"""
