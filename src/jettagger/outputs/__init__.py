"""What a network's output columns mean: classes and targets, each with the activation that its loss asks for."""
