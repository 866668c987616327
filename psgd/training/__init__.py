"""What training is made of: models, losses, optimizers, schedules, metrics, callbacks."""
