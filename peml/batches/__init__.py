"""From examples to a model's inputs, and which examples a step sees.

Others take `Collator` and `Batch`, `JointSampler`, and `Shares` for several processes. It imports
`model` and `tasks`.
"""
