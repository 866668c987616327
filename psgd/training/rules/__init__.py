"""Update rules that textbooks write and torch has not, as ``torch.optim`` optimizers."""
