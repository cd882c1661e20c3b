"""What all other packages use: checks, files, configs, checkpoints."""
