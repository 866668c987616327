"""Hyperparameter search: Ray Tune and Optuna on top of `psgd.trainer`. With cluster the only importer of ray."""
