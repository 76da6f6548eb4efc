"""The result as a camera of its own, for video calls: pyvirtualcam over v4l2loopback, OBS or UnityCapture."""

from __future__ import annotations

from typing import Any

from edge_deeplab.composite import fit
from edge_deeplab.errors import UserError, needs
from edge_deeplab.imaging import Frame


class VirtualCamera:
    """Sends frames to a virtual camera. Use as a context manager.

    Args:
        device: ``/dev/video9``, or "" for the first there is.
        rate: Frames per second that are announced.
    """

    def __init__(self, device: str, rate: float) -> None:
        with needs("virtual-camera"):
            import pyvirtualcam
        self._module: Any = pyvirtualcam
        self._device, self._rate = device or None, rate
        self._camera: Any = None

    def write(self, picture: Frame, _: float) -> None:
        """Show a frame, BGR uint8 (H, W, 3); the first one sets the camera's size.

        Raises:
            UserError: There is no virtual camera on this computer.
        """
        if self._camera is None:
            self._camera = self._open(picture)
            print(f"virtual camera: {self._camera.device}", flush=True)
        if picture.shape[:2] != (self._camera.height, self._camera.width):
            picture = fit(picture, self._camera.height, self._camera.width)
        self._camera.send(picture)

    def _open(self, picture: Frame) -> Any:
        height, width = picture.shape[:2]
        try:
            return self._module.Camera(
                width, height, self._rate, fmt=self._module.PixelFormat.BGR, device=self._device
            )
        except RuntimeError as error:
            raise UserError(
                f"no virtual camera ({' '.join(str(error).split())}); cure on Linux: "
                "sudo modprobe v4l2loopback; on Windows and macOS: install OBS Studio"
            ) from error

    def __enter__(self) -> VirtualCamera:
        return self

    def __exit__(self, *_: object) -> None:
        if self._camera is not None:
            self._camera.close()
