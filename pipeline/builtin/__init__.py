"""Built-in models: checkpoints that come with the package, each beside the script that trained it."""
