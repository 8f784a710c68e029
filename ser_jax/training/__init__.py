"""From one pure step to a trained network: state, losses, programs, loop, checkpoints."""
