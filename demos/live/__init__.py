"""The live loop: camera, model and screen side by side, the newest frame first."""
