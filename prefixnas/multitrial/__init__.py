"""What strategies by trial are made of: one architecture after the other.

`prefixnas.TrialStrategy` is their base, which asks for one method.

For strategies. May import: base, space, network, run.
"""
