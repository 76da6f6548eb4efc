"""The network in PyTorch: MobileNetV2, ASPP, decoder, named variants, checkpoints."""
