"""What ``edge-deeplab demo`` runs (``demo_NAME.py``, each with a ``DEMO``), and examples to copy."""
