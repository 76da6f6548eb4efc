"""The models that come with the package, and their cards."""
