"""The whole of it in ten lines: a photo in, a cut-out and a blurred background out.

python -m edge_deeplab.demos.embed_script photo.jpg
"""

import sys

import cv2

from edge_deeplab.composite import blur_background, cut_out
from edge_deeplab.imaging import read_image
from edge_deeplab.matte import Matte
from edge_deeplab.runtimes import open_model

if len(sys.argv) != 2:
    sys.exit("usage: python -m edge_deeplab.demos.embed_script PHOTO")
frame = read_image(sys.argv[1])
with open_model("portrait", threads=2) as model:
    result = model.segment(frame)
alpha = Matte().update(frame, result.logits)
cv2.imwrite("cutout.png", cut_out(frame, alpha))
cv2.imwrite("blurred.jpg", blur_background(frame, alpha))
print(f"{result.labels.mean():.0%} person, {result.times.total:.1f} ms")
