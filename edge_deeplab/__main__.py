"""``python -m edge_deeplab``."""

from edge_deeplab.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
