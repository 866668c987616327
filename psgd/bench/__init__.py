"""Psgd measured beside its peers and beside what the machine can do at best, in one run.

Modules:
    case: the synthetic model, and what a step is.
    times: from time stamps to medians.
    processes: fresh processes that end with their parent.
    peers: one module each, with ``run(case)``.
    step: psgd and its peers in turn, and the ratios.
"""
