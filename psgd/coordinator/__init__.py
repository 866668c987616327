"""The schedule of a run: phases, membership, evaluations, its end; plain classes that decide with a reason."""
