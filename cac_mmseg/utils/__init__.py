"""What every floor shares: checks, files, configs, checkpoints."""
